"""What a model needs in memory, and whether the NPU can address it."""

from __future__ import annotations

import sys
from bisect import bisect_right
from dataclasses import dataclass

from .configuration import Configuration
from .errors import ModelTooLargeError
from .models import MODELS, ModelShape
from .profile import DeviceProfile
from .program import OUTLIER_CHANNELS, shadow_layers

_BUFFERS = 3
"""Live float activations of the widest function: its input, its output, the residual stream."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes by purpose."""

    npu_weights: int
    embedding: int
    head: int
    kv_cache: int
    shadow_rows: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(vars(self).values())


def memory_use(model: ModelShape, configuration: Configuration, prompt: int, output: int = 0) -> MemoryUse:
    """Peak bytes of a request: int8 linears, int8 head, float16 embedding, float32 caches and buffers.

    A layer with shadows keeps the float32 rows of its hot outlier channels: at most 3 % of them. Integer MLPs
    have none.
    """
    shadows = shadow_layers(model.layers, configuration.pruned_share)
    columns = model.qkv_columns + model.hidden
    if not configuration.fuses_mlp(model.gated):
        columns += model.hidden + model.up_columns
    hot = max(OUTLIER_CHANNELS, round(0.03 * model.hidden))
    longest = min(max(configuration.chunk_lengths, default=prompt), prompt)
    return MemoryUse(
        npu_weights=model.linear_weights,
        embedding=2 * model.head_weights,
        head=model.head_weights,
        kv_cache=model.kv_bytes(prompt + output),
        shadow_rows=4 * hot * columns * len(shadows),
        activations=_buffer_bytes(model, longest),
    )


def npu_bytes(model: ModelShape, configuration: Configuration, prompt: int) -> int:
    """Bytes the NPU addresses: its weights and the buffers of the longest chunk."""
    if configuration.placement.linear != "npu":
        return 0
    longest = max(configuration.chunk_lengths, default=prompt)
    return model.linear_weights + _buffer_bytes(model, longest)


def _buffer_bytes(model: ModelShape, rows: int) -> int:
    return 4 * _BUFFERS * rows * max(model.up_columns, model.qkv_columns)


def check_memory(
    model: ModelShape, configuration: Configuration, profile: DeviceProfile, prompt: int, output: int = 0
) -> None:
    """Raises ModelTooLargeError, with what would fit, when the NPU or the device cannot hold the model."""
    _check_npu(model, configuration, profile, prompt)
    needed, limit = memory_use(model, configuration, prompt, output).total, profile.cpu.memory_bytes
    if needed > limit:
        longest = _longest_prompt(model, configuration, limit)
        raise ModelTooLargeError(
            f"{model.name} with {prompt} prompt and {output} output tokens needs {needed / 1e9:.2f} GB of "
            f"memory, {profile.name} has {limit / 1e9:.2f} GB: {(needed - limit) / 1e9:.2f} GB too much. "
            f"What fits: {f'prompts of up to {longest} tokens' if longest else 'no prompt'}"
        )


def _check_npu(model: ModelShape, configuration: Configuration, profile: DeviceProfile, prompt: int) -> None:
    needed, limit = npu_bytes(model, configuration, prompt), profile.npu_memory_bytes
    if needed <= limit:
        return
    buffers = needed - model.linear_weights
    layers = max(0, (limit - buffers) // model.layer_weights)
    fitting = [shape.name for shape in MODELS.values() if npu_bytes(shape, configuration, prompt) <= limit]
    raise ModelTooLargeError(
        f"{model.name} needs {needed / 1e9:.2f} GB of NPU memory, {profile.name} has {limit / 1e9:.2f} GB "
        f"(sessions: {profile.npu.sessions}): {(needed - limit) / 1e9:.2f} GB too much. "
        f"What fits: {layers} of its {model.layers} layers; "
        f"whole: {', '.join(fitting) or 'none of the models'}"
    )


def _longest_prompt(model: ModelShape, configuration: Configuration, limit: int) -> int:
    """Tokens of the longest prompt that fits in ``limit`` bytes, of which each takes some; 0 for none."""
    sizes = range(1, min(limit, sys.maxsize))
    return bisect_right(sizes, limit, key=lambda prompt: memory_use(model, configuration, prompt).total)
