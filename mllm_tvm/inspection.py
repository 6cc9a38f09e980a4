"""Looks into artifacts, and into models that are not compiled, or exist as a configuration only."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tvm import ir

from mllm_tvm.artifact import load_artifact
from mllm_tvm.call_graph import extract_graph
from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.assemble import build_module, read_config
from mllm_tvm.frontend.config import CONFIG_NAME, ConfigReader, ModelConfig, read_json
from mllm_tvm.frontend.load import load_model
from mllm_tvm.published import published_names, published_path
from mllm_tvm.sharing import Sharing, measure_sharing
from mllm_tvm.tensor_file import tensor_bytes
from relax_passes import pipeline
from relax_passes.analyze_token_axis import TokenAxisTable, analyze_token_axis
from relax_passes.expose_linear_inputs import linear_inputs
from relax_passes.graph import split_params
from relax_passes.quantize_w8a8 import LinearScheme


def load_config(name: str | os.PathLike[str]) -> ModelConfig:
    """The settings of a published model, by name in any case, or of a ``config.json``.

    Raises:
        ModelError: there is neither, or the settings cannot be used.
    """
    path = published_path(str(name)) or Path(name)
    if path.is_dir():
        path = path / CONFIG_NAME
    if not path.is_file():
        raise ModelError(
            f"{name} is not a model: expected a Hugging Face directory, its config.json, an ONNX or GGUF "
            f"file, or one of {', '.join(published_names())}"
        )
    return read_config(ConfigReader(path, read_json(path)))


def import_model(name: str | os.PathLike[str]) -> tuple[ir.IRModule, ModelConfig]:
    """``main`` of a model as it is imported, and its settings; a ``config.json`` needs no weights.

    ``name``: what :func:`load_config` takes, or an ONNX or GGUF file.

    Raises:
        ModelError: there is no such model, or it cannot be imported.
    """
    path = Path(name)
    has_config = path.suffix == ".json" or (path / CONFIG_NAME).is_file() or published_path(str(name))
    if has_config or not path.exists():
        config = load_config(name)
        return build_module(config), config
    model = load_model(path)
    return model.module, model.config


def float_module(name: str | os.PathLike[str]) -> ir.IRModule:
    """``main`` of a model; see :func:`import_model`."""
    return import_model(name)[0]


def partition(module: ir.IRModule, shadow_share: float = 1.0) -> ir.IRModule:
    """The placed functions of an imported model; its last linears have a shadow path.

    ``shadow_share``: share of the linears' inputs that have one.

    Raises:
        ModelError: a share that is not between 0 and 1.
    """
    if not 0 <= shadow_share <= 1:
        raise ModelError(f"shadow share is {shadow_share}: expected 0 to 1")
    groups = list(linear_inputs(module["main"]).values())
    first = len(groups) - math.ceil(shadow_share * len(groups))
    linears = {n: LinearScheme(shadow=i >= first) for i, group in enumerate(groups) for n in group}
    return pipeline.run(module, linears)


def inspect_model(
    name: str | os.PathLike[str], prompt: int, chunk_lengths: Sequence[int], shadow_share: float = 1.0
) -> Sharing:
    """The sharing of a model without compiling it; see the functions above."""
    imported, config = import_model(name)
    module = partition(imported, shadow_share)
    _, parameters = split_params(module["main"])
    sizes = {p.name: _bytes(p.ty.shape.values, str(p.ty.dtype)) for p in parameters}
    return measure_sharing(extract_graph(module), sizes, config.hidden_size, chunk_lengths, prompt)


def inspect_artifact(
    path: str | os.PathLike[str], prompt: int, chunk_lengths: Sequence[int] | None = None
) -> Sharing:
    """The sharing of an artifact; raises ArtifactError for a damaged one."""
    artifact = load_artifact(path, check_hashes=False)
    manifest = artifact.manifest
    files = set(manifest.parameters.values())
    sizes = {name: size for file in files for name, size in tensor_bytes(artifact.file(file)).items()}
    hidden_size = manifest.model_integer("hidden_size")
    lengths = chunk_lengths or manifest.chunk_lengths
    return measure_sharing(manifest.graph, sizes, hidden_size, lengths, prompt)


def token_axis_table(name: str | os.PathLike[str]) -> TokenAxisTable:
    """The token axis of every value of a model; see :func:`float_module`."""
    return analyze_token_axis(float_module(name)["main"])


def _bytes(shape: Sequence[ir.Expr], dtype: str) -> int:
    return math.prod(int(extent) for extent in shape) * np.dtype(dtype).itemsize
