"""Scales chosen from statistics alone, no model."""

import numpy as np
import pytest

from mllm_tvm.errors import CalibrationError
from mllm_tvm.quantization.reference import quantized_linear
from mllm_tvm.quantization.schemes import SCHEMES, SchemeSettings
from mllm_tvm.quantization.statistics import LinearStatistics


def _group(factor=1.0, name="w"):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 64)).astype(np.float32)
    weight = rng.standard_normal((64, 32)).astype(np.float32)
    x[:, [3, 40]] *= factor
    weight[[3, 40]] /= factor
    group = LinearStatistics((name,), weight)
    group.add(x)
    return group, x, weight


def _linear(scheme, group):
    return SCHEMES[scheme].linears([group], SchemeSettings(hot_share=1.0), group.matrix.size)[0]


def _ratio(x, weight, linear):
    exact = x @ weight
    error = quantized_linear(x, weight, linear) - exact
    return 10 * np.log10(np.square(exact).sum() / np.square(error).sum())


@pytest.mark.parametrize("factor", [1, 10, 30, 100])
def test_channels_scaled_up_cost_nothing(factor):
    """Two of 64 channels are more than the budget allows as outliers: they are smoothed away."""
    group, x, weight = _group(factor)
    linear = _linear("ours", group)
    assert _ratio(x, weight, linear) > 36
    naive = _linear("naive", group)
    if factor >= 30:
        assert bool(linear.smoothing)
        assert _ratio(x, weight, naive) < 20


@pytest.mark.parametrize("scheme", ["ours", "naive", "smoothquant"])
def test_predicted_ratio_is_the_measured_one(scheme):
    group, x, weight = _group(10)
    linear = _linear(scheme, group)
    assert linear.signal_to_noise == pytest.approx(_ratio(x, weight, linear), abs=1.5)


def test_values_that_are_not_finite_name_the_linear():
    group, x, _ = _group(name="model.layers.0.w")
    with pytest.raises(CalibrationError, match=r"input of model\.layers\.0\.w"):
        group.add(np.where(np.arange(64) == 5, np.float32(np.nan), x))
