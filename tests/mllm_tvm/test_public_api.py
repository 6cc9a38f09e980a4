"""The package's lazy public names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mllm_tvm as mt

ROOT = Path(__file__).resolve().parents[2]


def _run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_import_loads_no_tvm_and_sets_the_environment() -> None:
    out = _run(
        "import sys, os, time; t = time.perf_counter(); import mllm_tvm; t = time.perf_counter() - t;"
        "print('tvm' in sys.modules, 'numpy' in sys.modules, os.environ['TVM_BIND_THREADS'],"
        " os.environ['TVM_NUM_THREADS'].isdigit(), t < 0.1)"
    )
    assert out.split() == ["False", "False", "0", "True", "True"]


def test_an_error_class_is_public_and_the_same_object() -> None:
    from mllm_tvm import errors

    assert mt.ModelError is errors.ModelError
    assert issubclass(mt.DeviceError, mt.MllmTvmError)
    assert mt.errors is errors


def test_unknown_name_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="lode_model"):
        _ = mt.lode_model


def test_dir_lists_every_public_name() -> None:
    assert set(mt.__all__) <= set(dir(mt))


def test_every_public_name_resolves() -> None:
    for name in mt.__all__:
        assert getattr(mt, name) is not None


def test_compile_stays_a_function_after_its_module_is_imported() -> None:
    import mllm_tvm.compiler

    assert callable(mt.compile)
    assert mt.compile is mllm_tvm.compiler.compile
