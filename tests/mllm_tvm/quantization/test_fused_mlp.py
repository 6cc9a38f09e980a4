"""Fused MLPs in a whole model: as exact as float activations with shadow paths."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.parameters import make_parameter
from mllm_tvm.quantization.executor import QuantizedModel
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
def recipe(model):
    return uncalibrated_recipe(model, shadow_share=1.0)


@pytest.fixture(scope="module")
def fused(model, recipe):
    return QuantizedModel(model, recipe, fuse_mlp=True)


def test_as_exact_as_a_float_activation_with_shadow_paths(model, recipe, fused):
    exact = FloatModel(model).run(IDS)[0]
    errors = [np.square(m.run(IDS) - exact).mean() for m in (fused, QuantizedModel(model, recipe))]
    assert errors[0] < 1.5 * errors[1] < 0.01 * np.square(exact).mean()


def test_formats_are_parameters(model, recipe):
    module = pipeline.run(model.module, recipe.schemes(), model.shadow_dtype, last="lower", fuse_mlp=True)
    names = [parameter.name for parameter in split_params(module["main"])[1]]
    for suffix in (GLU_MULTIPLIERS, GLU_SHIFTS, GLU_TABLE):
        assert sum(name.endswith(suffix) for name in names) == 1


def test_recipes_are_swapped_without_compiling(model, recipe, fused):
    """The formats of the activation follow the scales."""
    before = fused.run(IDS)
    linears = [dataclasses.replace(linear, clip_scale=2 * linear.scale) for linear in recipe.linears]
    other = dataclasses.replace(recipe, linears=tuple(linears))
    other = other.prune({linear.weights[0] for linear in linears if "mlp" in linear.weights[0]})
    fused.use(other)
    formats = [name for name in fused._vm.parameters if name.endswith((GLU_MULTIPLIERS, GLU_SHIFTS))]
    assert len(formats) == 2
    for name in formats:
        expected = make_parameter(name, "int32", model.parameters, other)
        np.testing.assert_array_equal(fused._vm.parameters[name].numpy(), expected)
    assert np.any(fused.run(IDS) != before)
    fused.use(recipe)
    np.testing.assert_array_equal(fused.run(IDS), before)


def test_a_row_does_not_depend_on_the_others(fused):
    np.testing.assert_array_equal(fused.run(IDS)[:7], fused.run(IDS[:7]))
