"""Compiled artifacts, made once a session, and devices behind a tracker."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mllm_tvm.artifact import Artifact
from mllm_tvm.build import CompileSettings, compile_model
from mllm_tvm.demo import MODEL_DIR
from mllm_tvm.errors import DeviceError
from targets.hexagon.farm import Farm
from targets.hexagon.tracker import Tracker

SERVE_TRACKER = """
import socket
from targets.hexagon.farm import serve_tracker
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
print(port, flush=True)
serve_tracker("127.0.0.1", port)
"""


@pytest.fixture(scope="session")
def demo_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The demo model, compiled with the default settings."""
    return compile_model(MODEL_DIR, tmp_path_factory.mktemp("demo") / "artifact", CompileSettings())


@pytest.fixture(scope="session")
def stories3m_artifact(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """stories3M, a model with real activation outliers, calibrated on its own kind of text."""
    settings = CompileSettings(calibration=str(shared_data / "text/calibration.txt"))
    output = tmp_path_factory.mktemp("stories3m") / "artifact"
    return compile_model(shared_data / "hf/stories3M", output, settings)


@pytest.fixture(scope="session")
def require_device() -> Callable[[str], None]:
    """Skips a test whose device this machine cannot run."""

    def check(device: str) -> None:
        if device == "qemu" and shutil.which("qemu-hexagon") is None:
            pytest.skip("qemu-hexagon is not installed")

    return check


@pytest.fixture(scope="module")
def farm() -> Iterator[tuple[str, Farm]]:
    """Two devices behind a tracker, and the name sessions know them by."""
    if shutil.which("qemu-hexagon") is None:
        pytest.skip("qemu-hexagon is not installed (apt-get install qemu-user)")
    with subprocess.Popen(
        [sys.executable, "-c", SERVE_TRACKER], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            tracker = Tracker("127.0.0.1", int(process.stdout.readline()))
            while True:
                try:
                    tracker.connect().__exit__(None, None, None)
                    break
                except DeviceError:
                    assert process.poll() is None
            with Farm(tracker, 2, "two") as served:
                yield f"tracker://127.0.0.1:{tracker.port}/two", served
        finally:
            process.kill()
