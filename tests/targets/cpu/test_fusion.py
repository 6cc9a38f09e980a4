"""What becomes one kernel: the fewer, the fewer times values go to memory and back."""

from __future__ import annotations

import re

import numpy as np
from tvm import relax, tirx
from tvm.relax import op

from targets.cpu.build import lower
from targets.cpu.target import cpu_target
from tests.targets.cpu.helpers import Function, module, run, vectorized_loops, virtual_machine
from tests.targets.cpu.test_build import FLOAT, FUNCTIONS, SCALE, X, quantize, shape


def kernels_called(functions: dict[str, Function], name: str) -> int:
    return lower(module(functions), cpu_target())[name].script().count("R.call_tir(")


def test_elementwise_results_share_a_kernel() -> None:
    assert kernels_called(FUNCTIONS, "quantize") == 1
    norm = Function(
        (X, ((64,), FLOAT)), lambda d, x, g: quantize(d, op.nn.rms_norm(x, g, axes=[-1], epsilon=1e-5))
    )
    assert kernels_called({"norm": norm}, "norm") == 1
    both = Function((X, (("seq", 96), FLOAT)), lambda d, x, y: (*quantize(d, x), *quantize(d, y)))
    assert kernels_called({"both": both}, "both") == 2  # one of each shape


def test_results_that_are_views_or_used_again_are_not_copied() -> None:
    views = Function((X, X), lambda _, x, y: (op.expand_dims(x, 1), op.expand_dims(y, 1)))
    lowered = lower(module({"views": views}), cpu_target())
    assert not any(g.name_hint.startswith("fused") for g in lowered.get_global_vars())
    # The sum is a result and an operand of a kernel that is not to be fused: one of its own.
    split = Function(
        (X, X, ((64, 8), FLOAT)), lambda _, x, y, w: (op.add(x, y), op.matmul(op.add(x, y), w), op.exp(x))
    )
    lowered = lower(module({"split": split}), cpu_target())
    assert kernels_called({"split": split}, "split") == 3
    assert not any("join" in g.name_hint for g in lowered.get_global_vars())


def norm_of_sum(
    dims: dict[str, tirx.Var], x: relax.Expr, y: relax.Expr, weight: relax.Expr
) -> tuple[relax.Expr, ...]:
    total = op.add(x, y)
    return total, *quantize(dims, op.nn.rms_norm(total, weight, axes=[-1], epsilon=1e-5))


def test_the_residual_stream_is_a_result_of_its_norm() -> None:
    functions = {"norm": Function((X, X, ((64,), FLOAT)), norm_of_sum)}
    lowered = lower(module(functions), cpu_target())
    (kernel,) = [func for _, func in lowered.functions_items() if isinstance(func, tirx.PrimFunc)]
    assert "T.parallel(seq)" in kernel.script()
    assert len(re.findall(r"= a0\[.* \+ a1\[", kernel.script())) == 1  # added once
    x, y = np.random.default_rng(4).standard_normal((2, 5, 64), np.float32)
    weight = np.linspace(0.5, 1.5, 64, dtype=np.float32)
    vm = virtual_machine(module(functions))
    stream, integers, residual = whole = run(vm, "norm", x, y, weight)
    np.testing.assert_array_equal(stream, x + y)
    normed = stream / np.sqrt(np.square(stream).mean(axis=1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose((integers + residual) * SCALE, normed, atol=0.51 * SCALE)
    rows = [run(vm, "norm", x[i : i + 1], y[i : i + 1], weight) for i in range(5)]
    for parts, expected in zip(zip(*rows, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), expected)


def rotary(
    dims: dict[str, tirx.Var], q: relax.Expr, k: relax.Expr, scale: relax.Expr, angles: relax.Expr
) -> tuple[relax.Expr, ...]:
    heads = [op.reshape(op.multiply(op.astype(y, FLOAT), scale), shape(dims["seq"], 2, 32)) for y in (q, k)]
    halves = [[op.strided_slice(head, [2], [16 * i], [16 * i + 16]) for i in range(2)] for head in heads]
    turned = [op.concat([op.negative(second), first], axis=2) for first, second in halves]
    return tuple(op.add(head, op.multiply(turn, angles)) for head, turn in zip(heads, turned, strict=True))


def test_dequantization_and_rotary_embedding_are_one_kernel() -> None:
    integers = (("seq", 64), "int32")
    functions = {"rotary": Function((integers, integers, ((64,), FLOAT), (("seq", 1, 32), FLOAT)), rotary)}
    lowered = lower(module(functions), cpu_target())
    (kernel,) = [func for _, func in lowered.functions_items() if isinstance(func, tirx.PrimFunc)]
    assert "T.parallel(seq)" in kernel.script()
    assert vectorized_loops(kernel) == 2
    rng = np.random.default_rng(3)
    q, k = rng.integers(-9, 9, (2, 5, 64)).astype(np.int32)
    scale, angles = rng.random(64, np.float32), rng.random((5, 1, 32), np.float32)
    vm = virtual_machine(module(functions))
    whole = run(vm, "rotary", q, k, scale, angles)
    for integer, actual in zip((q, k), whole, strict=True):
        heads = (integer * scale).astype(np.float32).reshape(5, 2, 32)
        expected = heads + np.concatenate([-heads[..., 16:], heads[..., :16]], axis=-1) * angles
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    rows = [run(vm, "rotary", q[i : i + 1], k[i : i + 1], scale, angles[i : i + 1]) for i in range(5)]
    for parts, expected in zip(zip(*rows, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), expected)
