"""Channels a hundred times larger than the others: naive W8A8 collapses, ours does not notice."""

import numpy as np

from mllm_tvm.calibration import Calibration
from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.quantization.executor import QuantizedModel
from mllm_tvm.quantization.schemes import SchemeSettings
from tests.benchmarks.hard_model import harden
from tests.mllm_tvm.frontend.tiny_models import save_llama

TEXTS = ["the cat sat on the mat and the dog sat on the cat, " * 12, "a dog and a cat and words"]


def test_scaled_channels_cost_nothing(tmp_path):
    easy = load_model(save_llama(tmp_path / "easy"))
    hard = load_model(harden(easy.path, tmp_path / "hard", 100.0))
    calibration = Calibration.collect(hard, TEXTS)
    ids = calibration.segments[0][:40]
    exact = FloatModel(easy).run(ids)[0]
    np.testing.assert_allclose(calibration.runner.float_model.run(ids)[0], exact, rtol=1e-3, atol=1e-3)

    # The same module serves both: only parameters differ.
    recipe = calibration.recipe("ours", SchemeSettings(hot_share=0.2))
    model = QuantizedModel(hard, recipe)
    ours = _noise(model.run(ids), exact)
    naive = calibration.recipe("naive")
    model.use(naive)
    assert _noise(model.run(ids), exact) > 10 * ours
    assert ours < 0.01


def _noise(found, exact):
    return float(np.square(found - exact).sum() / np.square(exact).sum())
