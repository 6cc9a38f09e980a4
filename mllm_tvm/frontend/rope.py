"""Rotary position embeddings: their settings in ``config.json`` and the tables of cosines and sines.

Supported variants (``rope_type``): ``default``, ``linear``, ``dynamic``, ``llama3`` and ``yarn``. Dynamic
scaling starts behind ``max_position_embeddings``, where a context ends here, so it equals ``default``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mllm_tvm.errors import ModelError

if TYPE_CHECKING:
    from mllm_tvm.frontend.config import ConfigReader


@dataclass(frozen=True)
class Rope:
    """Rotary settings: ``dim`` of each head's channels are rotated, by angles of base ``theta``.

    ``scaling`` holds the numbers of a scaled variant under their names in ``config.json``, ``divisors`` what
    each pair's frequency is divided by (GGUF files say so instead), empty for nothing.
    """

    dim: int
    theta: float = 10000.0
    kind: str = "default"
    scaling: Mapping[str, float] = field(default_factory=dict)
    divisors: tuple[float, ...] = ()

    def tables(self, positions: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines, [positions, dim / 2] float32 each, computed in float64."""
        frequencies, factor = _VARIANTS[self.kind](self)
        angles = np.arange(positions, dtype=np.float64)[:, None] * frequencies
        return (factor * np.cos(angles)).astype(np.float32), (factor * np.sin(angles)).astype(np.float32)

    def inverse_wavelengths(self) -> np.ndarray:
        """Radians a position turns each pair of channels by, before scaling: [dim / 2] float64."""
        plain = self.theta ** -(np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)
        return plain / np.asarray(self.divisors) if self.divisors else plain


Frequencies = tuple[np.ndarray, float]
"""Radians a position of each pair, and a factor of both tables."""


def _default(rope: Rope) -> Frequencies:
    return rope.inverse_wavelengths(), 1.0


def _linear(rope: Rope) -> Frequencies:
    return rope.inverse_wavelengths() / rope.scaling["factor"], 1.0


def _llama3(rope: Rope) -> Frequencies:
    """Low frequencies are divided by ``factor``, high ones kept, those between interpolated."""
    plain, s = rope.inverse_wavelengths(), rope.scaling
    turns = s["original_max_position_embeddings"] * plain / (2 * math.pi)
    kept = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
    kept = np.clip(kept, 0.0, 1.0)
    return plain * (kept + (1 - kept) / s["factor"]), 1.0


def _yarn(rope: Rope) -> Frequencies:
    plain, s = rope.inverse_wavelengths(), rope.scaling
    low = _yarn_pair(rope, s.get("beta_fast", 32.0))
    high = _yarn_pair(rope, s.get("beta_slow", 1.0))
    if s.get("truncate", 1.0):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    ramp = (np.arange(rope.dim // 2) - low) / (high - low if high != low else 0.001)
    scaled = np.clip(ramp, 0.0, 1.0)
    return plain * (1 - scaled + scaled / s["factor"]), _yarn_factor(s)


def _yarn_pair(rope: Rope, turns: float) -> float:
    """The pair of channels that turns so often over the original context."""
    original = rope.scaling["original_max_position_embeddings"]
    return rope.dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))


def _yarn_factor(s: Mapping[str, float]) -> float:
    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(s["factor"]) + 1.0 if s["factor"] > 1 else 1.0

    if "attention_factor" in s:
        return s["attention_factor"]
    if s.get("mscale") and s.get("mscale_all_dim"):
        return magnitude(s["mscale"]) / magnitude(s["mscale_all_dim"])
    return magnitude(1.0)


_VARIANTS: dict[str, Callable[[Rope], Frequencies]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _default,
    "llama3": _llama3,
    "yarn": _yarn,
}
_REQUIRED = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
_OPTIONAL = {"yarn": ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor")}


def read_rope(reader: ConfigReader, head_dim: int, default_share: float = 1.0) -> Rope:
    """The rotary settings of a ``config.json``, as transformers 4 (``rope_scaling``) and 5 write them.

    ``default_share`` is the rotated share of a head's channels where the file does not say.

    Raises:
        ModelError: an unknown variant, or a number that is missing or out of range.
    """
    name, rope = _rope_object(reader)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _VARIANTS:
        supported = ", ".join(_VARIANTS)
        raise ModelError(
            f"{reader.path}: {name}: rotary scaling {kind!r} is not supported; supported: {supported}"
        )
    inner = reader.inner(name, rope)
    share = inner.number("partial_rotary_factor", reader.number("partial_rotary_factor", default_share))
    dim = int(head_dim * share)
    if head_dim % 2:
        raise reader.error("head_dim", "an even number (rotary embeddings rotate pairs)")
    if dim % 2 or not 0 < dim <= head_dim:
        raise reader.error("partial_rotary_factor", f"an even number of rotated channels of {head_dim}")
    theta = inner.number("rope_theta", reader.number("rope_theta", 10000.0))
    divisors = tuple(rope.get("frequency_divisors", ()))
    if divisors and (len(divisors) != dim // 2 or not all(divisor > 0 for divisor in divisors)):
        raise ModelError(f"{reader.path}: frequency divisors: expected {dim // 2} positive numbers")
    return Rope(dim, theta, kind, _scaling(reader, inner, kind), divisors)


def _rope_object(reader: ConfigReader) -> tuple[str, Mapping[str, Any]]:
    for name in ("rope_parameters", "rope_scaling"):
        rope = reader.settings.get(name)
        if rope is not None and not isinstance(rope, dict):
            raise reader.error(name, "an object or null")
        if rope:
            return name, rope
    return "rope_parameters", {}


def _scaling(reader: ConfigReader, inner: ConfigReader, kind: str) -> dict[str, float]:
    context = {"original_max_position_embeddings": reader.value("max_position_embeddings")}
    numbers = {name: inner.number(name, context.get(name)) for name in _REQUIRED.get(kind, ())}
    for name in _OPTIONAL.get(kind, ()):
        if inner.settings.get(name) is not None:
            numbers[name] = inner.number(name)
    if kind == "yarn" and not inner.flag("truncate", True):
        numbers["truncate"] = 0.0
    return numbers
