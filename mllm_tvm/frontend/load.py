"""Loads a model from what people have: a Hugging Face directory, an ONNX file or a GGUF file."""

from __future__ import annotations

import os
from pathlib import Path

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.config import CONFIG_NAME
from mllm_tvm.frontend.model import Model

GGUF_SUFFIX = ".gguf"


def load_model(path: str | os.PathLike[str]) -> Model:
    """Imports a model.

    ``path`` is a Hugging Face directory (``config.json``, safetensors weights, ``tokenizer.json``), an ONNX
    file or a directory with one, or a GGUF file or a directory with one and no ``config.json``. Weights are
    checked (names, shapes, dtypes) but read only when asked for. No code of the model is run.

    Raises:
        ModelError: a file is missing or damaged, or the model is of an unsupported kind.
    """
    source = Path(path)
    if not source.exists() or not (source.is_dir() or source.suffix in (GGUF_SUFFIX, ".onnx")):
        raise ModelError(
            f"{source} is not a directory or a model file: expected a Hugging Face model directory, or an "
            "ONNX or GGUF file"
        )
    if gguf := _find_gguf(source):
        from mllm_tvm.frontend.gguf_model import load_gguf

        return load_gguf(gguf)
    from mllm_tvm.frontend.onnx import find_onnx, load_onnx

    if onnx := find_onnx(source):
        return load_onnx(onnx)
    from mllm_tvm.frontend.huggingface import load_directory

    return load_directory(source)


def _find_gguf(path: Path) -> Path | None:
    """The GGUF file that ``path`` names: itself, or the only one in a directory without ``config.json``."""
    if path.suffix == GGUF_SUFFIX and path.is_file():
        return path
    files = [] if (path / CONFIG_NAME).is_file() else list(path.glob(f"*{GGUF_SUFFIX}"))
    return files[0] if len(files) == 1 else None
