"""Attention that leaves int8 has the bits of attention and quantization one after the other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import tvm
from tvm import relax

from targets.cpu.build import lower
from targets.cpu.target import cpu_target
from tests.targets.cpu.helpers import Array, Function, module, run, virtual_machine, with_threads

S, T = "s", "t"
LIMIT = 127.0
Dims = dict[str, relax.Expr]


def attended(_: Dims, q: relax.Var, k: relax.Var, v: relax.Var) -> relax.Var:
    call = relax.op.nn.attention(q, k, v, causal_mask="BottomRight")
    return relax.BlockBuilder.current().emit(call)


def rows_of(dims: Dims, *qkv: relax.Var) -> relax.Var:
    x = attended(dims, *qkv)
    rows = relax.op.reshape(x, (dims[S], int(x.ty.shape[2]) * int(x.ty.shape[3])))
    return relax.BlockBuilder.current().emit(rows)


def quantized(
    rows: relax.Expr, step: relax.Expr, residual: bool, limit: float = LIMIT
) -> tuple[relax.Expr, ...]:
    scaled = relax.op.divide(rows, step)
    rounded = relax.op.round(scaled)
    clipped = relax.op.clip(rounded, -limit, limit)
    integers = relax.op.astype(clipped, "int8")
    if not residual:
        return (integers,)
    inside = relax.op.equal(rounded, clipped)
    excess = relax.op.subtract(scaled, clipped)
    return integers, relax.op.where(inside, relax.const(0.0, "float32"), excess)


def arguments(heads: int, kv_heads: int, d: int) -> tuple[tuple[tuple[int | str, ...], str], ...]:
    keys = ((1, T, kv_heads, d), "float32")
    return ((1, S, heads, d), "float32"), keys, keys


def functions(heads: int, kv_heads: int, d: int, per_channel: bool, residual: bool) -> tvm.IRModule:
    qkv = arguments(heads, kv_heads, d)
    step = ((heads * d,) if per_channel else (), "float32")

    def joint(dims: Dims, *a: relax.Var) -> tuple[relax.Expr, ...]:
        return quantized(rows_of(dims, *a[:3]), a[3], residual)

    def quantize(_: Dims, rows: relax.Var, step: relax.Var) -> tuple[relax.Expr, ...]:
        return quantized(rows, step, residual)

    rows = ((S, heads * d), "float32")
    return module(
        {
            "joint": Function((*qkv, step), joint),
            "attention": Function(qkv, attended),
            "quantize": Function((rows, step), quantize),
        }
    )


def kernels(mod: tvm.IRModule, name: str) -> list[str]:
    """The kernels that a function calls, lowered."""
    bindings = lower(mod, cpu_target())[name].body.blocks[0].bindings
    calls = [b.value for b in bindings if isinstance(b.value, tvm.ir.Call)]
    return [str(call.args[0].name_hint) for call in calls]


def inputs(s: int, t: int, heads: int, kv_heads: int, d: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(s + 1000 * t)
    q, k, v = (
        rng.standard_normal((1, *shape), np.float32)
        for shape in ((s, heads, d), (t, kv_heads, d), (t, kv_heads, d))
    )
    # The last key, which only the last query sees.
    v[0, -1, 0, :3] = np.inf, -np.inf, np.nan
    return q, k, v


def assert_equal_bits(actual: Iterable[Array], expected: Iterable[Array]) -> None:
    for left, right in zip(actual, expected, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("layout", "per_channel", "residual"),
    [((8, 4, 32), False, True), ((3, 1, 40), True, False)],
)
def test_bits_of_attention_then_quantization(
    layout: tuple[int, int, int], per_channel: bool, residual: bool
) -> None:
    mod = functions(*layout, per_channel, residual)
    assert kernels(mod, "joint") == ["attention_w8a8"]
    heads, _, d = layout
    rng = np.random.default_rng(0)
    step = np.float32(0.01) * (1 + rng.random(heads * d if per_channel else (), np.float32))
    step = np.asarray(step, np.float32)
    vm = virtual_machine(mod)
    # Few rows, one vector of rows, two; and a tile that is not full.
    for s, t in ((1, 1), (3, 90), (8, 70), (16, 16), (70, 130)):
        q, k, v = inputs(s, t, *layout)
        rows = run(vm, "attention", q, k, v)[0].reshape(s, heads * d)
        expected = run(vm, "quantize", rows, step)
        for threads in (1, 2):
            actual = with_threads(threads, lambda a=(q, k, v): run(vm, "joint", *a, step))
            assert_equal_bits(actual, expected)
        assert len(np.unique(expected[0])) > 10
        if residual:
            assert np.count_nonzero(expected[1])
    whole = run(vm, "joint", q, k, v, step)
    first = run(vm, "joint", q[:, :20], k[:, :80], v[:, :80], step)
    assert_equal_bits(first, [value[:20] for value in whole])


def test_what_is_read_elsewhere_or_quantized_otherwise_stays_apart() -> None:
    qkv, step = arguments(2, 1, 16), ((), "float32")

    def with_rows(dims: Dims, *a: relax.Var) -> tuple[relax.Expr, ...]:
        rows = rows_of(dims, *a[:3])
        return (*quantized(rows, a[3], False), relax.op.negative(rows))

    def to_seven_bits(dims: Dims, *a: relax.Var) -> tuple[relax.Expr, ...]:
        return quantized(rows_of(dims, *a[:3]), a[3], False, limit=63.0)

    mod = module({"rows": Function((*qkv, step), with_rows), "seven": Function((*qkv, step), to_seven_bits)})
    for name in ("rows", "seven"):
        assert kernels(mod, name)[0] == "attention"
