"""Which integer linears a model has: from an artifact, or from the graph of anything that can be imported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mllm_tvm.call_graph import extract_graph
from mllm_tvm.errors import ModelError
from mllm_tvm.inspection import float_module, partition
from mllm_tvm.manifest import FunctionSpec
from mllm_tvm.tuning.workload import Shape
from targets.hexagon.mlp import MlpShape

MANIFEST = "manifest.json"


def model_shapes(model: str, chunk_lengths: Sequence[int]) -> list[Shape]:
    """The kernels of ``model`` at each chunk length, without repetition.

    ``model`` is an artifact directory, a Hugging Face directory or its ``config.json``, an ONNX or GGUF file,
    or the name of a published model. Without an artifact, the kernels are those that the compiler would make.
    Raises ModelError when it is none of these, or cannot be imported.
    """
    path = Path(model) / MANIFEST
    linears = _artifact_linears(path) if path.is_file() else _compiled_linears(model)
    return [Shape(m, k, n) for m in chunk_lengths for k, n in dict.fromkeys(linears)]


def _compiled_linears(model: str) -> list[tuple[int, int]]:
    return _linears(extract_graph(partition(float_module(model), shadow_share=0.0)).functions)


def _artifact_linears(path: Path) -> list[tuple[int, int]]:
    try:
        linears = _linears(FunctionSpec(**f) for f in _json(path)["graph"]["functions"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} lists no functions ({error!r}): compile the model again") from error
    if not linears:
        raise ModelError(f"{path} names no NPU functions: compile the model again")
    return linears


def _linears(functions: Iterable[FunctionSpec]) -> list[tuple[int, int]]:
    """(K, N) of each integer linear; a fused MLP has two."""
    found: list[tuple[int, int]] = []
    for function in functions:
        if function.kind == "mlp":
            shapes = MlpShape(1, function.k, function.channels, function.n).linears
            found += [(k, n) for _, k, n in shapes]
        elif function.processor == "npu":
            found.append((function.k, function.n))
    return found


def _json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}, expected an object")
    return value
