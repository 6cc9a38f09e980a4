"""The runner on real device processes: same results as NumPy, and a device that is killed in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from runtime_fakes import CHUNK_LENGTHS, FUNCTIONS, VOCAB, make_parameters, make_runner, reference_logits

from mllm_tvm.errors import DeviceError
from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.session import DeviceSession, open_session
from targets.hexagon.target import hexagon_target, host_target
from targets.hexagon.toolchain import link_server

PROMPT = [int(i) for i in np.random.default_rng(2).integers(0, VOCAB, 50)]


@pytest.fixture(scope="module", params=["host", "qemu"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A device name and a server with the kernels of the test model."""
    device = request.param
    if device == "qemu" and shutil.which("qemu-hexagon") is None:
        pytest.skip("qemu-hexagon is not installed")
    hexagon = device == "qemu"
    names = {m: f"linear_8x32_m{m}" for m in CHUNK_LENGTHS}
    kernels = {name: linear_w8a8(m, 8, 32, hvx=hexagon, name=name) for m, name in names.items()}
    directory = tmp_path_factory.mktemp("server")
    target = hexagon_target("qcom/hexagon-v68").llvm_target() if hexagon else host_target()
    build_object(kernels, target, directory / "kernels.o")
    return device, link_server([directory / "kernels.o"], device, directory / "server")


@pytest.fixture
def session(server: tuple[str, Path]) -> DeviceSession:
    return open_session(*server)


def test_logits_are_those_of_numpy(session: DeviceSession) -> None:
    runner = make_runner(session)
    result = runner.prefill(PROMPT, all_logits=True)
    runner.close()
    np.testing.assert_array_equal(result.logits, reference_logits(PROMPT, make_parameters()), strict=True)
    assert result.npu.calls == 4 * len(result.chunks)
    on_hexagon = session.device == "qemu"
    assert (result.npu.packets > 0, result.npu.hvx > 0) == (on_hexagon, on_hexagon)


def test_a_killed_device_ends_the_run(session: DeviceSession) -> None:
    """Both workers stop at once, the error says why, and neither a thread nor a process is left."""
    threads, pid = set(threading.enumerate()), session.pid
    assert pid is not None

    def attention(*args: np.ndarray) -> tuple[np.ndarray, ...]:
        if len(args[1]) == len(PROMPT):
            os.kill(pid, signal.SIGKILL)
        return FUNCTIONS["attention"](*args)

    runner = make_runner(session, functions={**FUNCTIONS, "attention": attention}, policy="in-order")
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"was lost when asked to .*SIGKILL"):
        runner.prefill(PROMPT, all_logits=True)
    with pytest.raises(DeviceError, match="open a new engine"):
        runner.prefill(PROMPT)
    runner.close()
    assert time.monotonic() - begin < 5
    assert set(threading.enumerate()) <= threads
    assert not Path(f"/proc/{pid}").exists()
