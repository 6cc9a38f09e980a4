"""Chooses the next token from logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mllm_tvm.errors import PromptError


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are chosen; the default is greedy.

    ``temperature`` 0 is greedy. ``top_k`` keeps the k most likely tokens (0: all). ``top_p`` then keeps the
    fewest most likely tokens whose probability reaches it (1: all). Equal ``seed`` and logits give equal
    tokens.

    Raises:
        PromptError: a setting is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._check(
            "temperature", _is_number(self.temperature) and self.temperature >= 0, "a number from 0 up"
        )
        self._check("top_k", _is_integer(self.top_k) and self.top_k >= 0, "an integer from 0 (all tokens) up")
        self._check("top_p", _is_number(self.top_p) and 0 < self.top_p <= 1, "a number above 0, at most 1")
        self._check("seed", _is_integer(self.seed) and self.seed >= 0, "an integer from 0 up")

    def _check(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise PromptError(f"{name} is {getattr(self, name)!r}: expected {expected}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Sampler:
    """Draws tokens with one random stream; make a new one for each generation."""

    def __init__(self, config: SamplingConfig):
        self.config = config
        self.random = np.random.Generator(np.random.PCG64(config.seed))

    def next(self, logits: np.ndarray) -> int:
        """The next token id, from logits [vocab] float32. Greedy takes the first of equal maxima."""
        if self.config.temperature == 0:
            return int(np.argmax(logits))
        tokens = self._most_likely(logits)
        # Dividing the difference, not the logits: a tiny temperature overflows towards probability 0 only.
        with np.errstate(over="ignore"):
            scaled = (logits[tokens].astype(np.float64) - logits[tokens[0]]) / self.config.temperature
        cumulative = np.cumsum(np.exp(scaled))
        kept = self._nucleus(cumulative)
        draw = self.random.random() * cumulative[kept - 1]
        return int(tokens[min(int(np.searchsorted(cumulative, draw, side="right")), kept - 1)])

    def _most_likely(self, logits: np.ndarray) -> np.ndarray:
        """Token ids by falling logit (equal ones by id), the first ``top_k`` of them."""
        order = np.argsort(-logits, kind="stable")
        return order[: self.config.top_k] if self.config.top_k else order

    def _nucleus(self, cumulative: np.ndarray) -> int:
        """How many of the most likely tokens reach probability ``top_p``."""
        if self.config.top_p == 1:
            return len(cumulative)
        threshold = self.config.top_p * cumulative[-1]
        return min(int(np.searchsorted(cumulative, threshold, side="left")) + 1, len(cumulative))
