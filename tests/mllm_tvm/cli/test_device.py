"""``mllm-tvm device``: tracker, served devices and their list, as processes."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from mllm_tvm.cli import main

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-hexagon") is None, reason="qemu-hexagon is not installed (apt-get install qemu-user)"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """The command as a process, and the JSON object it prints when it is ready."""
    command = [sys.executable, "-c", "from mllm_tvm.cli import main; raise SystemExit(main())", *arguments]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()
            assert process.wait(timeout=20) == 130


@needs_qemu
def test_farm(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    with running("device", "tracker", "--port", address.split(":")[1]) as (_, tracker):
        assert tracker == {"tracker": address}
        with running("device", "serve", "--tracker", address, "--key", "k") as (
            farm,
            served,
        ):
            assert served["key"] == "k"
            servers = psutil.Process(farm.pid).children()
            assert main(["device", "list", "--tracker", address, "--json"]) == 0
            devices = [f"127.0.0.1:{port}" for port in served["ports"]]  # type: ignore[attr-defined]
            assert json.loads(capsys.readouterr().out) == {"k": {"devices": sorted(devices), "free": 1}}
            # What the shell does at Ctrl-C.
            farm.send_signal(signal.SIGINT)
            assert farm.wait(timeout=20) == 130
            assert not any(server.is_running() for server in servers)
        assert main(["device", "list", "--tracker", address]) == 0
        assert capsys.readouterr().out == "no devices\n"
        assert main(["device", "tracker", "--port", address.split(":")[1]]) == 1
        assert "choose another port" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["list", "serve"])
def test_no_tracker(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", action, "--tracker", f"127.0.0.1:{free_port()}"]) == 1
    assert "cannot reach an RPC tracker" in capsys.readouterr().err
    assert main(["device", action, "--tracker", "nowhere"]) == 1
    assert "expected host:port" in capsys.readouterr().err
