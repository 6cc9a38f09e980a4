"""Random models of a real model's shape, written tensor by tensor, and uncalibrated recipes for them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mllm_tvm.calibration import DEFAULT_HOT_SHARE
from mllm_tvm.frontend import architectures
from mllm_tvm.frontend.config import ConfigReader
from mllm_tvm.frontend.model import Model
from mllm_tvm.frontend.parameters import Weight
from mllm_tvm.published import published_settings
from mllm_tvm.recipe import LinearRecipe, Recipe
from mllm_tvm.tensor_file import TensorWriter
from relax_passes.expose_linear_inputs import linear_inputs
from tests.mllm_tvm.frontend.tiny_models import byte_level_tokenizer

_POOL = 1 << 22


def save_shaped(path: Path, name: str, **changes: Any) -> Path:
    """A float16 model with the configuration ``name`` and ``changes``, of random weights."""
    path.mkdir(parents=True)
    settings = {**published_settings(name), **changes}
    settings.update(bos_token_id=None, eos_token_id=2)
    (path / "config.json").write_text(json.dumps(settings))
    architecture = architectures.find(settings["model_type"])
    config = architecture.read_config(ConfigReader(path / "config.json", settings))
    weights = [spec for spec in architecture.parameters(config).values() if isinstance(spec, Weight)]
    layout = {weight.tensor: (weight.stored_shape, "float16") for weight in weights}
    pool = np.random.default_rng(0).standard_normal(_POOL, np.float32).astype(np.float16)
    with TensorWriter(path / "model.safetensors", layout) as writer:
        for i, (tensor, (shape, _)) in enumerate(layout.items()):
            writer.write(tensor, _random_rows(pool, shape, i))
    byte_level_tokenizer().save(str(path / "tokenizer.json"))
    return path


def _random_rows(pool: np.ndarray, shape: tuple[int, ...], seed: int) -> Any:
    """Blocks of ``shape`` out of ``pool``; matrices are scaled to keep activations near 1."""
    total, done = int(np.prod(shape)), 0
    scale = np.float16(shape[-1] ** -0.5 if len(shape) == 2 else 0.1)
    offset = np.float16(1.0 if len(shape) == 1 else 0.0)
    while done < total:
        block = np.roll(pool, 7919 * seed + done)[: total - done]
        yield block * scale + offset
        done += len(block)


def uncalibrated_recipe(model: Model, shadow_share: float = 0.0) -> Recipe:
    """Every linear's input scaled for values up to 4; the last ``shadow_share`` of inputs have a shadow.

    Of these, as many channels are hot as calibration chooses: the first ones.
    """
    groups = list(linear_inputs(model.module["main"]).values())
    first = len(groups) - round(shadow_share * len(groups))
    linears = []
    for i, weights in enumerate(groups):
        hot = math.ceil(DEFAULT_HOT_SHARE * model.parameter_shapes[weights[0]][0])
        linear = LinearRecipe(
            weights=weights,
            scale=float(np.float32(4 / 127)),
            limit=4.0,
            abs_max=5.0,
            outlier_share=0.001,
            outlier_channels=(),
            shadow=i >= first,
            hot_channels=tuple(range(hot)) if i >= first else (),
        )
        linears.append(linear)
    return Recipe(model.config.content_hash, None, 1, tuple(linears))
