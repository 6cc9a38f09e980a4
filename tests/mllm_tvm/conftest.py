"""Compiled artifacts, made once a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mllm_tvm.artifact import Artifact
from mllm_tvm.build import CompileSettings, compile_model
from mllm_tvm.demo import MODEL_DIR


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
