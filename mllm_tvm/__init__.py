"""An LLM compiler and out-of-order runtime for Qualcomm Hexagon NPUs, on Apache TVM.

    import mllm_tvm as mt

    model = mt.load_model("path/to/model")
    recipe = mt.calibrate(model, texts)
    mt.compile(model, recipe, target="qcom/hexagon-v68").save("out/")
    engine = mt.Engine("out/", device="qemu")

Names are imported when first used, so ``import mllm_tvm`` is instant and loads no TVM.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

# Both are read when TVM is imported. Binding would pin the calling thread to one core, and the threads it
# starts later inherit that; kernels run on one thread each because the engine runs several lanes.
os.environ.setdefault("TVM_BIND_THREADS", "0")
os.environ.setdefault("TVM_NUM_THREADS", "1")

if TYPE_CHECKING:
    from mllm_tvm import errors
    from mllm_tvm.artifact import load_artifact
    from mllm_tvm.calibration import Recipe, calibrate
    from mllm_tvm.compiler import compile
    from mllm_tvm.errors import (
        ArtifactError,
        CalibrationError,
        CompileError,
        DeviceError,
        MllmTvmError,
        ModelError,
        PromptError,
        TargetError,
        ToolchainError,
    )
    from mllm_tvm.frontend import Model, ModelConfig, load_model
    from mllm_tvm.runtime.engine import Engine
    from mllm_tvm.sampling import SamplingConfig

__all__ = [
    "ArtifactError",
    "CalibrationError",
    "CompileError",
    "DeviceError",
    "Engine",
    "MllmTvmError",
    "Model",
    "ModelConfig",
    "ModelError",
    "PromptError",
    "Recipe",
    "SamplingConfig",
    "TargetError",
    "ToolchainError",
    "calibrate",
    "compile",
    "errors",
    "load_artifact",
    "load_model",
]

_MODULES = {
    "Engine": "mllm_tvm.runtime.engine",
    "Model": "mllm_tvm.frontend",
    "ModelConfig": "mllm_tvm.frontend",
    "Recipe": "mllm_tvm.calibration",
    "SamplingConfig": "mllm_tvm.sampling",
    "calibrate": "mllm_tvm.calibration",
    "compile": "mllm_tvm.compiler",
    "load_artifact": "mllm_tvm.artifact",
    "load_model": "mllm_tvm.frontend",
}


def __getattr__(name: str) -> object:
    """Imports a public name from the module that defines it (PEP 562)."""
    if name == "errors":
        return importlib.import_module("mllm_tvm.errors")
    if name not in __all__:
        raise AttributeError(f"module 'mllm_tvm' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_MODULES.get(name, "mllm_tvm.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
