"""Which integer linears a model has: from an artifact, a Hugging Face directory or a published size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mllm_tvm.errors import ModelError
from mllm_tvm.tuning.workload import Shape

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder that decide its linears; ``gated`` means gate and up share their input."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    gated: bool = True

    def linears(self) -> list[tuple[int, int]]:
        """(K, N) of each kernel: linears that share their input are one kernel."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            (self.hidden, query + 2 * key),
            (query, self.hidden),
            (self.hidden, self.intermediate * (2 if self.gated else 1)),
            (self.intermediate, self.hidden),
            (self.hidden, self.vocab),
        ]


PUBLISHED = {
    "Qwen1.5-1.8B": Sizes(2048, 16, 16, 128, 5504, 151936),
    "Gemma-2B": Sizes(2048, 8, 1, 256, 16384, 256000),
    "Phi-2": Sizes(2560, 32, 32, 80, 10240, 51200, gated=False),
    "LLaMA-2-7B": Sizes(4096, 32, 32, 128, 11008, 32000),
    "Mistral-7B": Sizes(4096, 32, 8, 128, 14336, 32000),
}
"""Sizes in the published config.json files, for tuning without the weights."""


def model_shapes(model: str, chunk_lengths: Sequence[int]) -> list[Shape]:
    """The kernels of ``model`` at each chunk length, without repetition.

    ``model`` is an artifact directory, a Hugging Face model directory or a name in ``PUBLISHED``. Raises
    ModelError when it is none of these, or its configuration lacks a size.
    """
    path = Path(model)
    if (path / MANIFEST).is_file():
        linears = _artifact_linears(path / MANIFEST)
    elif (path / "config.json").is_file():
        linears = _config_sizes(path / "config.json").linears()
    elif model in PUBLISHED:
        linears = PUBLISHED[model].linears()
    else:
        raise ModelError(
            f"{model!r} is no artifact directory, no model directory with a config.json, and none of "
            f"{', '.join(PUBLISHED)}"
        )
    padded = dict.fromkeys((-(-k // 4) * 4, -(-n // 32) * 32) for k, n in linears)
    return [Shape(m, k, n) for m in chunk_lengths for k, n in padded]


def _artifact_linears(path: Path) -> list[tuple[int, int]]:
    functions = _json(path).get("graph", {}).get("functions", [])
    linears = [(f["k"], f["n"]) for f in functions if f.get("processor") == "npu"]
    if not linears:
        raise ModelError(f"{path} names no NPU functions: compile the model again")
    return linears


def _config_sizes(path: Path) -> Sizes:
    config = _json(path)
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return Sizes(
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            vocab=int(config["vocab_size"]),
            gated="phi" not in str(config.get("model_type")),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"{path} lacks a size that its linears need: {error!r}") from error


def _json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}, expected an object")
    return value
