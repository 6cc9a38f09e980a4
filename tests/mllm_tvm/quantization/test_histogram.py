"""The histogram's predictions against the errors themselves."""

import numpy as np
import pytest

from mllm_tvm.quantization.histogram import INT8_LIMIT, ChannelHistogram


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    x = rng.standard_t(4, size=(400, 24)).astype(np.float32)
    x[:, 5] *= 8
    return x


@pytest.fixture(scope="module")
def norms():
    return np.random.default_rng(1).uniform(0.1, 3, 24)


def _histogram(values, norms, divisor=None):
    return _channels(values).weighted(np.ones(24, np.float32) if divisor is None else divisor, norms)


def _channels(values):
    histogram = ChannelHistogram(24)
    for part in np.array_split(values, 7):
        histogram.add(np.abs(part))
    return histogram


def test_values_above_a_limit_by_channel(values):
    limits = np.array([0.3, 1.7, 4.0, 11.0])
    found = _channels(values).exceeding(limits)
    expected = np.array([(np.abs(values) > limit).mean(axis=0) for limit in limits])
    np.testing.assert_allclose(found, expected, atol=0.012)
    tiny_and_huge = np.array([1e-30, 1e30])
    np.testing.assert_allclose(_channels(values).exceeding(tiny_and_huge)[:, 0], [1, 0])


def _errors(scaled, step, clip):
    rounded = np.rint(scaled / step)
    clipped = np.clip(rounded, -INT8_LIMIT, INT8_LIMIT)
    error = np.square(scaled - clipped * step)
    return error if clip else np.where(rounded == clipped, error, 0)


@pytest.mark.parametrize("limit", [0.5, 2.0, 10.0, 60.0])
@pytest.mark.parametrize("clip", [True, False])
def test_predicted_noise(values, norms, limit, clip):
    divisor = np.linspace(0.5, 2, 24).astype(np.float32)
    histogram = _histogram(values, norms, divisor)
    step = limit / INT8_LIMIT
    predict = histogram.clipping_noise if clip else histogram.rounding_noise
    expected = (_errors(values / divisor, step, clip) @ norms).mean()
    assert predict(np.array([step]))[0] == pytest.approx(expected, rel=0.08)


def test_outlier_shares(values, norms):
    histogram = _histogram(values, norms)
    steps = np.array([0.5, 2.0, 10.0, 60.0]) / INT8_LIMIT
    expected = [(np.rint(np.abs(values) / step) > INT8_LIMIT).mean() for step in steps]
    np.testing.assert_allclose(histogram.outlier_shares(steps), expected, atol=0.004)
    assert histogram.outlier_shares(np.array([1e6]))[0] == 0


def test_noise_of_the_linear_output(values):
    """Summed by channel weight, the prediction is the squared error of a product with a weight."""
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((24, 64))
    histogram = _histogram(values, np.square(weight).sum(axis=1))
    step = 6 / INT8_LIMIT
    rounded = np.rint(values / step)
    error = np.where(np.abs(rounded) <= INT8_LIMIT, values - rounded * step, 0) @ weight
    assert histogram.rounding_noise(np.array([step]))[0] == pytest.approx(
        np.square(error).sum(1).mean(), rel=0.1
    )


@pytest.mark.parametrize("percentile", [50, 99, 99.9])
def test_percentile(values, norms, percentile):
    found = _histogram(values, norms).percentile(percentile)
    assert found == pytest.approx(np.percentile(np.abs(values), percentile), rel=0.02)
