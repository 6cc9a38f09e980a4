"""What all tests share: TVM's environment, and where the measurement data is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before anything imports TVM (see mllm_tvm/__init__.py).
os.environ.setdefault("TVM_BIND_THREADS", "0")
os.environ.setdefault("TVM_NUM_THREADS", "1")

import pytest

# A shell starts background jobs with SIGINT ignored, and Python then leaves it so: tests that interrupt would
# hang.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory of models and texts that the measurements use; they are not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no measurement data at {SHARED_DATA}")
    return SHARED_DATA
