"""Fused MLPs in a whole model: as exact as float activations with shadow paths."""

from __future__ import annotations

import numpy as np
import pytest

from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.parameters import make_parameter
from relax_passes import pipeline
from relax_passes.fuse_mlp import GLU_MULTIPLIERS, GLU_SHIFTS, GLU_TABLE
from relax_passes.graph import split_params
from tests.mllm_tvm.frontend.tiny_models import save_llama
from tests.mllm_tvm.shaped_model import uncalibrated_recipe

IDS = [3, 40, 80, 17, 5, 99, 23, 64, 2, 31, 7, 55]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    return load_model(save_llama(path, intermediate_size=132, num_hidden_layers=1))


@pytest.fixture(scope="module")
def fused(model):
    return _quantized(model, True)


def _quantized(model, fuse_mlp):
    recipe = uncalibrated_recipe(model, shadow_share=1.0)
    module = pipeline.run(model.module, recipe.schemes(), model.shadow_dtype, last="lower", fuse_mlp=fuse_mlp)
    types = {p.name: str(p.ty.dtype) for p in split_params(module["main"])[1]}
    values = {n: make_parameter(n, dtype, model.parameters, recipe) for n, dtype in types.items()}
    return FloatModel(model, module, values)


def test_as_exact_as_a_float_activation_with_shadow_paths(model, fused):
    exact = FloatModel(model).run(IDS)[0]
    errors = [np.square(m.run(IDS)[0] - exact).mean() for m in (fused, _quantized(model, False))]
    assert errors[0] < 1.5 * errors[1] < 0.01 * np.square(exact).mean()


def test_formats_are_parameters(fused):
    for suffix in (GLU_MULTIPLIERS, GLU_SHIFTS, GLU_TABLE):
        assert sum(name.endswith(suffix) for name in fused.parameters) == 1


def test_a_row_does_not_depend_on_the_others(fused):
    np.testing.assert_array_equal(fused.run(IDS)[0][:7], fused.run(IDS[:7])[0])
