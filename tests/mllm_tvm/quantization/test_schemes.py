"""Schemes, rotation and pruning on a small model: against NumPy references and against each other."""

import dataclasses

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from mllm_tvm.calibration import Calibration
from mllm_tvm.errors import CalibrationError, CompileError
from mllm_tvm.evaluation.layers import compare_layers
from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.parameters import make_parameter
from mllm_tvm.quantization.executor import QuantizedModel
from mllm_tvm.quantization.hot_rows import ITEM_BYTES, model_bytes
from mllm_tvm.quantization.pruning import PrunedPoint, PruningMeter, pick_share, prune, ranked
from mllm_tvm.quantization.reference import quantized_linear
from mllm_tvm.quantization.rotation import hadamard, rotate
from mllm_tvm.quantization.schemes import SCHEMES, SchemeSettings
from mllm_tvm.recipe import Recipe
from relax_passes import pipeline
from relax_passes.graph import split_params
from targets.cpu.build import build
from targets.cpu.target import cpu_target
from tests.mllm_tvm.frontend.tiny_models import save_llama

TEXTS = ["the cat sat on the mat and the dog sat on the cat, " * 12, "a dog and a cat and words"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(save_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def calibration(model):
    return Calibration.collect(model, TEXTS)


@pytest.fixture(scope="module")
def ids(calibration):
    return calibration.segments[0][:20]


@pytest.fixture(scope="module")
def exact(model, ids):
    return FloatModel(model).run(ids)[0]


@pytest.fixture(scope="module")
def recipe(calibration):
    return calibration.recipe("ours", SchemeSettings(0.01))


@pytest.fixture(scope="module")
def runner(model, recipe):
    return QuantizedModel(model, recipe)


def _noise(found, exact):
    return float(np.square(found - exact).sum() / np.square(exact).sum())


@pytest.mark.parametrize("scheme", ["naive", "smoothquant", "dynamic", "llm-int8", "paper", "ours"])
def test_compiled_linear_equals_the_numpy_reference(scheme, calibration, model, ids):
    recipe = calibration.recipe(scheme)
    linear = next(linear for linear in recipe.linears if "down_proj" in linear.weights[0])
    name = linear.weights[0]
    weight = model.parameters[name]
    x = np.random.default_rng(0).standard_t(3, (9, len(weight))).astype(np.float32) * np.float32(
        linear.abs_max
    )
    found = _compiled_linear(x, name, weight, recipe)
    expected = quantized_linear(x, weight, linear, recipe.activation)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def _compiled_linear(x, name, weight, recipe):
    """One linear through the passes and the CPU target."""
    builder = relax.BlockBuilder()
    argument = relax.Var("x", relax.TensorType([tirx.Var("seq", "int64"), len(weight)], "float32"))
    parameter = relax.Var(name, relax.TensorType(weight.shape, "float32"))
    with builder.function("main", [argument, parameter], {"num_input": 1}):
        with builder.dataflow():
            y = builder.emit_output(relax.Tuple([builder.emit(relax.op.matmul(argument, parameter))]))
        builder.emit_func_output(y)
    module = pipeline.run(builder.get(), {name: recipe.schemes()[name]}, "float32", last="lower")
    vm = relax.VirtualMachine(build(module, cpu_target()), tvm.cpu())
    types = {p.name: str(p.ty.dtype) for p in split_params(module["main"])[1]}
    values = [make_parameter(n, dtype, {name: weight}, recipe) for n, dtype in types.items()]
    (found,) = vm["main"](*map(tvm.runtime.tensor, [x, *values]))
    return found.numpy()


def test_every_channel_an_outlier_equals_float(runner, recipe, ids, exact):
    """With a tiny scale int8 holds nothing: everything takes the shadow path, here with float rows."""
    tiny = tuple(
        dataclasses.replace(
            linear,
            scale=1e-12,
            smoothing=(),
            hot_channels=tuple(range(runner.model.parameter_shapes[linear.weights[0]][0])),
        )
        for linear in recipe.linears
    )
    runner.use(dataclasses.replace(recipe, linears=tiny))
    found = runner.run(ids)
    np.testing.assert_allclose(found, exact, rtol=2e-4, atol=2e-4 * np.abs(exact).max())


@pytest.fixture(scope="module")
def runners(model, calibration, runner):
    """A compiled module for each way to scale activations."""
    dynamic = {name: QuantizedModel(model, calibration.recipe(name)) for name in ("dynamic", "llm-int8")}
    return {"static": runner, **{made.recipe.activation: made for made in dynamic.values()}}


@pytest.mark.parametrize("scheme", [name for name, scheme in SCHEMES.items() if not scheme.rotated])
def test_decoding_agrees_with_prefill(scheme, runners, calibration, ids):
    """Row by row with caches, or all rows at once: the same scales, so the same logits."""
    recipe = calibration.recipe(scheme)
    runners[recipe.activation].use(recipe)
    whole = runners[recipe.activation].run(ids)
    caches, rows = None, []
    for token in ids:
        logits, *caches = runners[recipe.activation].step([token], caches)
        rows.append(logits[0])
    np.testing.assert_array_equal(np.array(rows), whole)


def test_executor_swaps_recipes_without_compiling(model, runner, recipe, ids):
    runner.use(recipe)
    before = runner.run(ids)
    pruned = recipe.prune({linear.weights[0] for linear in recipe.linears})
    runner.use(pruned)
    np.testing.assert_allclose(runner.run(ids), QuantizedModel(model, pruned).run(ids), rtol=1e-5, atol=1e-5)
    runner.use(recipe)
    np.testing.assert_array_equal(runner.run(ids), before)


def test_a_larger_budget_means_more_outliers_and_less_noise(calibration):
    shares, ratios = [], []
    for budget in (0.0, 0.002, 0.01):
        linears = calibration.recipe("ours", SchemeSettings(budget, hot_share=1.0)).linears
        shares.append(np.mean([linear.outlier_share for linear in linears]))
        ratios.append(np.mean([linear.signal_to_noise for linear in linears]))
    assert shares[0] == 0
    assert shares[0] < shares[1] < shares[2] <= 0.012
    assert ratios[0] < ratios[1] < ratios[2]


def test_hot_rows_stay_within_their_memory(calibration):
    """A budget that binds; the chosen channels serve more outliers than others of the same linear."""
    for share in (0.01, 0.05):
        recipe = calibration.recipe("ours", SchemeSettings(0.01, hot_share=share))
        size = model_bytes(calibration.model, recipe.schemes())
        sizes = [
            len(linear.hot_channels) * group.matrix.shape[1] for linear, group in _pairs(recipe, calibration)
        ]
        assert 0 < sum(sizes) * ITEM_BYTES <= share * size
        for linear in recipe.linears:
            listed = [channel for channel, _ in linear.outlier_channels]
            assert list(linear.hot_channels) == listed[: len(linear.hot_channels)]


def _pairs(recipe, calibration):
    return zip(recipe.linears, calibration.groups, strict=True)


def test_less_memory_for_hot_rows_means_fewer_cold_outliers(calibration):
    """Scales follow the memory: outliers that no hot row would serve are avoided."""
    cold = []
    for share in (0.3, 0.01):
        linears = calibration.recipe("ours", SchemeSettings(0.01, hot_share=share)).linears
        cold.append(sum(linear.outlier_share * (1 - linear.hot_share) for linear in linears))
    assert cold[1] < cold[0]


@pytest.mark.parametrize("n", [1, 3, 8, 12, 64, 96, 100, 192])
def test_hadamard_is_orthogonal(n):
    matrix = hadamard(n)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-12)
    if n in (8, 12, 64, 96, 192):
        np.testing.assert_allclose(np.abs(matrix), n**-0.5)


def test_rotation_preserves_the_function(model, ids, exact):
    rotated = rotate(model)
    assert _noise(FloatModel(rotated).run(ids)[0], exact) < 1e-6
    changed = [n for n in model.parameters if not np.allclose(model.parameters[n], rotated.parameters[n])]
    assert "model.layers.0.self_attn.q_proj.weight" in changed


def test_a_recipe_of_the_rotated_model_does_not_fit_the_original(model, recipe):
    rotated = rotate(model)
    recipe = dataclasses.replace(recipe, model_hash=rotated.config.content_hash)
    recipe.check(rotated)
    with pytest.raises(CalibrationError, match="for a model with hash"):
        recipe.check(model)


def test_other_families_are_not_rotated(model):
    other = dataclasses.replace(model, config=dataclasses.replace(model.config, architecture="gpt2"))
    with pytest.raises(CompileError, match="gpt2"):
        rotate(other)


def test_importance_is_what_pruning_costs(calibration, recipe):
    # One linear whose clipping is made ruinous has to come out as the most important.
    victim = dataclasses.replace(
        recipe.linears[3], clip_scale=recipe.linears[3].scale / 50, clip_smoothing=()
    )
    linears = tuple(victim if i == 3 else linear for i, linear in enumerate(recipe.linears))
    recipe = dataclasses.replace(recipe, linears=linears)
    meter = PruningMeter(calibration, recipe, fuse_mlp=False, max_tokens=200)
    measured = meter.importance()
    assert ranked(measured)[-1].weights == victim.weights
    total = sum(len(linear.weights) for linear in linears)
    half = prune(measured, 0.5)
    pruned = [linear for linear in half.linears if not linear.shadow]
    assert total / 2 - 3 < sum(len(linear.weights) for linear in pruned) <= total / 2 + 0.5
    assert victim.weights not in [linear.weights for linear in pruned]
    points = meter.tune(measured, (0.0, 0.5, 1.0))
    assert points[2].divergence > points[1].divergence
    assert (points[0].pruned, points[2].pruned) == (0, total)


def test_pruning_errors(recipe):
    with pytest.raises(CalibrationError, match="is not measured"):
        prune(recipe, 0.5)
    with pytest.raises(CalibrationError, match="pruned share is 2"):
        prune(recipe, 2, "largest-outlier")
    with pytest.raises(CalibrationError, match="importance 'size'"):
        prune(recipe, 0.5, "size")
    points = [PrunedPoint(share, 0, 1.0, 0.0, divergence) for share, divergence in ((0, 0.01), (1, 0.1))]
    assert pick_share(points, 0.02).share == 0
    with pytest.raises(CalibrationError, match="the least is 1"):
        pick_share(points, 0.001)


def test_the_culprit_is_found(model, calibration, recipe):
    index = 5
    bad = dataclasses.replace(recipe.linears[index], shadow=False, scale=recipe.linears[index].scale / 20)
    linears = tuple(bad if i == index else linear for i, linear in enumerate(recipe.linears))
    reports = compare_layers(model, dataclasses.replace(recipe, linears=linears), calibration.segments[:1])
    assert reports[0].weight in bad.weights
    assert "shadow path" in reports[0].remedy
    assert reports[0].remedied > reports[0].signal_to_noise + 20
    assert len(reports) == sum(len(linear.weights) for linear in linears)


def test_every_scheme_makes_a_recipe_that_loads(calibration, tmp_path):
    for name, scheme in SCHEMES.items():
        recipe = calibration.recipe(name)
        recipe.save(tmp_path / "recipe.json")
        assert Recipe.load(tmp_path / "recipe.json") == recipe
        assert recipe.activation == scheme.activation
