"""The transcendental functions over their whole range, against double precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from tvm import relax, te, tirx
from tvm.relax import op

from targets.cpu import vector_math
from tests.targets.cpu.helpers import Array, Function, Kernel, module, run, virtual_machine

FUNCTIONS = {"exp": op.exp, "sigmoid": op.sigmoid, "tanh": op.tanh, "erf": op.erf, "gelu": op.nn.gelu}
X = ((("seq", 64), "float32"),)


@pytest.fixture(scope="module")
def evaluate() -> Callable[[str, Array], Array]:
    functions = {name: Function(X, lambda _, x, f=f: f(x)) for name, f in FUNCTIONS.items()}
    vm: relax.VirtualMachine = virtual_machine(module(functions))

    def call(name: str, x: Array) -> Array:
        padded = np.resize(x.astype(np.float32), (-(-x.size // 64), 64))
        return run(vm, name, padded)[0].ravel()[: x.size]

    return call


def sweep(low: float, high: float) -> Array:
    return np.linspace(low, high, 200_001, dtype=np.float32)


def relative_error(expected: Array, actual: Array) -> float:
    return float(np.abs(actual / expected - 1).max())


def test_exp_is_accurate(evaluate: Callable[[str, Array], Array]) -> None:
    x = sweep(-87.0, 88.7)
    assert relative_error(np.exp(x.astype(np.float64)), evaluate("exp", x)) < 2e-7


def test_exp_at_the_ends_of_the_range(evaluate: Callable[[str, Array], Array]) -> None:
    x = np.array([-np.inf, -1e30, -104.0, -100.0, -88.0, 0.0, 88.73, 1e30, np.inf, np.nan])
    with np.errstate(over="ignore", under="ignore"):
        expected = np.exp(x.astype(np.float32))
    # 1.4e-45 is the last place of a subnormal.
    np.testing.assert_allclose(evaluate("exp", x), expected, rtol=2e-7, atol=1.5e-45)


def test_tanh_has_relative_accuracy_near_zero(evaluate: Callable[[str, Array], Array]) -> None:
    for limit in (1e-3, 1.0, 20.0):
        x = sweep(1e-4 * limit, limit)
        assert relative_error(np.tanh(x.astype(np.float64)), evaluate("tanh", x)) < 4e-7


def test_sigmoid_is_accurate(evaluate: Callable[[str, Array], Array]) -> None:
    x = sweep(-80.0, 80.0)
    assert relative_error(1 / (1 + np.exp(-x.astype(np.float64))), evaluate("sigmoid", x)) < 4e-7


def test_erf_is_accurate(evaluate: Callable[[str, Array], Array]) -> None:
    x = sweep(-6.0, 6.0)
    expected = np.vectorize(math.erf)(x.astype(np.float64))
    assert np.abs(evaluate("erf", x) - expected).max() < 6e-7


def test_exp_of_nonpositive() -> None:
    def exps() -> tirx.PrimFunc:
        x = te.placeholder((len(values),), name="x")
        y = te.compute(x.shape, lambda i: vector_math.exp_of_nonpositive(x(i)))
        return te.create_prim_func([x, y])

    values = np.append(sweep(-86.0, 0.0), [-86.01, -88.0, -2e38, -np.inf, np.nan]).astype(np.float32)
    result = Kernel(exps())(values, out=np.zeros_like(values))
    assert relative_error(np.exp(values[:-5].astype(np.float64)), result[:-5]) < 2e-7
    assert result[-6] == 1.0
    np.testing.assert_array_equal(result[-5:], [0, 0, 0, 0, np.nan])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_stays_nan(name: str, evaluate: Callable[[str, Array], Array]) -> None:
    assert np.isnan(evaluate(name, np.array([np.nan]))).all()
