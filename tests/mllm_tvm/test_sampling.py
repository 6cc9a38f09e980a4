"""Greedy choice, and the distribution of draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mllm_tvm.errors import PromptError
from mllm_tvm.sampling import Sampler, SamplingConfig

DRAWS = 20_000
LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.25, 0.2], np.float32))


def _frequencies(**settings: Any) -> np.ndarray:
    sampler = Sampler(SamplingConfig(**settings))
    return np.bincount([sampler.next(LOGITS) for _ in range(DRAWS)], minlength=len(LOGITS)) / DRAWS


def test_greedy_takes_the_first_maximum() -> None:
    logits = np.array([0.0, 3.0, 1.0, 3.0], np.float32)
    assert Sampler(SamplingConfig()).next(logits) == 1


def test_temperature_one_draws_the_softmax() -> None:
    np.testing.assert_allclose(_frequencies(temperature=1.0), np.exp(LOGITS), atol=0.015)


def test_temperature_sharpens() -> None:
    expected = np.exp(LOGITS) ** 2
    np.testing.assert_allclose(_frequencies(temperature=0.5), expected / expected.sum(), atol=0.015)


def test_top_k_keeps_the_most_likely() -> None:
    found = _frequencies(temperature=1.0, top_k=2)
    np.testing.assert_allclose(found, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0], atol=0.015)


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    found = _frequencies(temperature=1.0, top_p=0.6)  # 0.4 is too little, 0.4 + 0.25 is enough
    np.testing.assert_allclose(found, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0], atol=0.015)


def test_small_top_p_is_greedy() -> None:
    assert _frequencies(temperature=1.0, top_p=1e-6)[1] == 1


def test_top_p_applies_to_what_top_k_left() -> None:
    found = _frequencies(temperature=1.0, top_k=2, top_p=0.6)  # 0.4 / 0.65 is enough alone
    assert found[1] == 1


def test_equal_logits_are_equally_likely() -> None:
    sampler = Sampler(SamplingConfig(temperature=1.0, seed=3))
    found = np.bincount([sampler.next(np.zeros(4, np.float32)) for _ in range(DRAWS)]) / DRAWS
    np.testing.assert_allclose(found, 0.25, atol=0.015)


def test_tiny_temperature_is_greedy_without_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert Sampler(SamplingConfig(temperature=1e-300)).next(LOGITS) == 1


def test_equal_seeds_draw_equally_and_others_do_not() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Sampler(SamplingConfig(temperature=1.0, seed=seed))
        return [sampler.next(LOGITS) for _ in range(50)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_logits_are_left_as_they_are() -> None:
    logits = LOGITS.copy()
    Sampler(SamplingConfig(temperature=0.7, top_k=3, top_p=0.9)).next(logits)
    np.testing.assert_array_equal(logits, LOGITS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("seed", -1),
        ("seed", True),
    ],
)
def test_setting_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(PromptError, match=f"{name} is .*expected"):
        SamplingConfig(**{name: value})
