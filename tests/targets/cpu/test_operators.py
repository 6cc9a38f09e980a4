"""Every Relax op the CPU target supports: against NumPy, vectorized, and row by row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op

from targets.cpu.build import lower
from targets.cpu.target import cpu_target
from tests.targets.cpu.helpers import (
    Array,
    Body,
    Function,
    assert_rows_are_independent,
    module,
    run,
    snr_db,
    vectorized_loops,
    virtual_machine,
)

# 64: whole vectors of 32; 100: vectors of 4 only; 37: not divisible, left to LLVM.
WIDTHS = (64, 100, 37)
ROWS = 19
FLOAT = "float32"


def const(value: float) -> relax.Expr:
    return relax.const(value, FLOAT)


def shape(*dims: int | tirx.Var) -> relax.ShapeExpr:
    return relax.ShapeExpr(list(dims))


@dataclass(frozen=True)
class Elementwise:
    """An op on x, y and a positive z of [seq, width] with its NumPy meaning in double precision."""

    body: Body
    reference: Callable[[Array, Array, Array], Array]
    snr: float = 120.0


def erf(x: Array) -> Array:
    return np.vectorize(math.erf)(x)


ELEMENTWISE = {
    "add": Elementwise(lambda _, x, y, z: op.add(x, y), lambda x, y, z: x + y),
    "subtract": Elementwise(lambda _, x, y, z: op.subtract(x, y), lambda x, y, z: x - y),
    "multiply": Elementwise(lambda _, x, y, z: op.multiply(x, y), lambda x, y, z: x * y),
    "divide": Elementwise(lambda _, x, y, z: op.divide(x, z), lambda x, y, z: x / z),
    "power": Elementwise(lambda _, x, y, z: op.power(z, y), lambda x, y, z: z**y),
    "square": Elementwise(lambda _, x, y, z: op.power(x, const(2.0)), lambda x, y, z: x * x),
    "sqrt": Elementwise(lambda _, x, y, z: op.sqrt(z), lambda x, y, z: np.sqrt(z)),
    "rsqrt": Elementwise(lambda _, x, y, z: op.rsqrt(z), lambda x, y, z: 1 / np.sqrt(z)),
    "sigmoid": Elementwise(lambda _, x, y, z: op.sigmoid(x), lambda x, y, z: 1 / (1 + np.exp(-x))),
    "silu": Elementwise(lambda _, x, y, z: op.nn.silu(x), lambda x, y, z: x / (1 + np.exp(-x))),
    "swiglu": Elementwise(
        lambda _, x, y, z: op.multiply(op.nn.silu(x), op.nn.silu(op.add(x, y))),
        lambda x, y, z: x / (1 + np.exp(-x)) * (x + y) / (1 + np.exp(-x - y)),
    ),
    "gelu": Elementwise(lambda _, x, y, z: op.nn.gelu(x), lambda x, y, z: x * (0.5 + 0.5 * erf(x / 2**0.5))),
    "gelu_tanh": Elementwise(
        lambda _, x, y, z: op.nn.gelu_tanh(x),
        lambda x, y, z: x * (0.5 + 0.5 * np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    ),
    "exp": Elementwise(lambda _, x, y, z: op.exp(x), lambda x, y, z: np.exp(x)),
    "tanh": Elementwise(lambda _, x, y, z: op.tanh(x), lambda x, y, z: np.tanh(x)),
    "erf": Elementwise(lambda _, x, y, z: op.erf(x), lambda x, y, z: erf(x)),
    "negative": Elementwise(lambda _, x, y, z: op.negative(x), lambda x, y, z: -x),
    "abs": Elementwise(lambda _, x, y, z: op.abs(x), lambda x, y, z: np.abs(x)),
    "maximum": Elementwise(lambda _, x, y, z: op.maximum(x, y), lambda x, y, z: np.maximum(x, y)),
    "clip": Elementwise(lambda _, x, y, z: op.clip(x, -0.5, 2), lambda x, y, z: np.clip(x, -0.5, 2)),
    "round": Elementwise(lambda _, x, y, z: op.round(x), lambda x, y, z: np.rint(x)),
    "where": Elementwise(
        lambda _, x, y, z: op.where(op.equal(op.round(x), const(1.0)), y, z),
        lambda x, y, z: np.where(np.rint(x) == 1, y, z),
    ),
    "int8": Elementwise(
        lambda _, x, y, z: op.astype(op.clip(op.round(op.multiply(x, const(40.0))), -127, 127), "int8"),
        lambda x, y, z: np.clip(np.rint(x.astype(np.float32) * np.float32(40)), -127, 127),
    ),
    "int32": Elementwise(
        lambda _, x, y, z: op.astype(op.astype(op.multiply(x, const(40.0)), "int32"), FLOAT),
        lambda x, y, z: np.trunc(x.astype(np.float32) * np.float32(40)),
    ),
    "float16": Elementwise(
        lambda _, x, y, z: op.astype(op.astype(x, "float16"), FLOAT),
        lambda x, y, z: x.astype(np.float32).astype(np.float16),
    ),
    "rms_norm": Elementwise(
        lambda _, x, y, z: op.nn.rms_norm(x, ones(x), axes=[-1], epsilon=1e-5),
        lambda x, y, z: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5),
    ),
    "layer_norm": Elementwise(
        lambda _, x, y, z: op.nn.layer_norm(
            op.add(x, const(50.0)), ones(x), zeros(x), axes=[-1], epsilon=1e-5
        ),
        lambda x, y, z: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
        snr=100.0,
    ),
    "softmax": Elementwise(
        lambda _, x, y, z: op.nn.softmax(op.multiply(x, const(9.0))),
        lambda x, y, z: np.exp(9 * x) / np.exp(9 * x).sum(-1, keepdims=True),
    ),
    "mean": Elementwise(
        lambda _, x, y, z: op.subtract(x, op.mean(x, axis=-1, keepdims=True)),
        lambda x, y, z: x - x.mean(-1, keepdims=True),
    ),
    "max": Elementwise(
        lambda _, x, y, z: op.subtract(x, op.max(x, axis=-1, keepdims=True)),
        lambda x, y, z: x - x.max(-1, keepdims=True),
    ),
}


def ones(x: relax.Expr) -> relax.Expr:
    return relax.const(np.ones(int(x.ty.shape[-1]), np.float32))


def zeros(x: relax.Expr) -> relax.Expr:
    return relax.const(np.zeros(int(x.ty.shape[-1]), np.float32))


def elementwise_module(width: int) -> tvm.IRModule:
    operand = (("seq", width), FLOAT)
    return module({name: Function((operand,) * 3, case.body) for name, case in ELEMENTWISE.items()})


def operands(width: int) -> Array:
    """[3, ROWS, width]: x, y and a positive z."""
    rng = np.random.default_rng(width)
    xyz = rng.standard_normal((3, ROWS, width), np.float32) * np.float32(2)
    xyz[2] = np.abs(xyz[2]) + np.float32(0.1)
    return xyz


@pytest.fixture(scope="module", params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def elementwise_vm(width: int) -> relax.VirtualMachine:
    return virtual_machine(elementwise_module(width))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str, width: int, elementwise_vm: relax.VirtualMachine) -> None:
    xyz = operands(width)
    expected = ELEMENTWISE[name].reference(*xyz.astype(np.float64))

    def compute(rows: Array) -> Array:
        return run(elementwise_vm, name, *rows.transpose(1, 0, 2).copy())[0]

    actual = compute(xyz.transpose(1, 0, 2))
    assert actual.shape == expected.shape
    assert snr_db(expected, actual) > ELEMENTWISE[name].snr
    assert_rows_are_independent(compute, xyz.transpose(1, 0, 2), (1, 7))


@pytest.mark.parametrize("multiple_of_4", [64, 100])
def test_every_function_is_vectorized(multiple_of_4: int, caplog: pytest.LogCaptureFixture) -> None:
    lowered = lower(elementwise_module(multiple_of_4), cpu_target())
    functions = {g.name_hint: f for g, f in lowered.functions_items() if isinstance(f, tirx.PrimFunc)}
    assert len(functions) >= len(ELEMENTWISE) - 1
    assert [name for name, func in functions.items() if not vectorized_loops(func)] == []
    assert caplog.messages == []


def test_a_reduction_that_is_not_vectorized_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    lower(elementwise_module(37), cpu_target())
    logged = {message.split()[-1].rstrip("1") for message in caplog.messages}
    assert logged == {"fused_mean1_subtract", "fused_add2_layer_norm", "max", "rms_norm", "softmax"}


def rope(dims: dict[str, tirx.Var], x: relax.Expr, positions: relax.Expr, table: relax.Expr) -> relax.Expr:
    heads = op.reshape(x, shape(dims["seq"], 4, 16))
    first, second = (op.strided_slice(heads, [2], [8 * i], [8 * i + 8]) for i in range(2))
    rotated = op.concat([op.negative(second), first], axis=-1)
    angles = op.expand_dims(op.take(table, positions, axis=0), 1)
    return op.add(op.multiply(heads, angles), op.multiply(rotated, angles))


def rope_reference(x: Array, positions: Array, table: Array) -> Array:
    heads = x.reshape(len(x), 4, 16)
    angles = table[positions][:, None]
    return heads * angles + np.concatenate([-heads[..., 8:], heads[..., :8]], axis=-1) * angles


def split_heads(_dims: dict[str, tirx.Var], x: relax.Expr) -> tuple[relax.Expr, ...]:
    parts = op.split(x, 4, axis=-1)
    return parts[0], parts[3], op.add(parts[1], parts[2])


X = (("seq", 64), FLOAT)
LAYOUT: dict[str, tuple[Function, Callable[..., list[Array]]]] = {
    "rope": (
        Function((X, (("seq",), "int32"), ((50, 16), FLOAT)), rope),
        lambda x, p, t: [rope_reference(x, p, t)],
    ),
    "embedding": (
        Function(
            (X, (("seq",), "int32"), ((50, 16), "float16")),
            lambda _, x, ids, table: op.astype(op.take(table, ids, axis=0), FLOAT),
        ),
        lambda x, ids, table: [table[ids].astype(np.float32)],
    ),
    "append": (
        Function(
            ((("past", 2, 8), FLOAT), (("seq", 2, 8), FLOAT)), lambda _, a, b: op.concat([a, b], axis=0)
        ),
        lambda a, b: [np.concatenate([a, b])],
    ),
    "split": (
        Function((X,), split_heads),
        lambda x: [x[:, :16], x[:, 48:], x[:, 16:32] + x[:, 32:48]],
    ),
    "permute": (
        Function((X,), lambda d, x: op.permute_dims(op.reshape(x, shape(d["seq"], 4, 16)), [1, 0, 2])),
        lambda x: [x.reshape(-1, 4, 16).transpose(1, 0, 2)],
    ),
    "transpose": (Function((X,), lambda _, x: op.permute_dims(x, [1, 0])), lambda x: [x.T]),
    "repeat_heads": (
        Function(
            (X,),
            lambda d, x: op.reshape(
                op.broadcast_to(op.reshape(x, shape(d["seq"], 4, 1, 16)), shape(d["seq"], 4, 3, 16)),
                shape(d["seq"], 12, 16),
            ),
        ),
        lambda x: [np.repeat(x.reshape(-1, 4, 16), 3, axis=1)],
    ),
    "squeeze": (
        Function((X,), lambda _, x: op.squeeze(op.expand_dims(op.negative(x), [0, 2]), [0])),
        lambda x: [-x[:, None]],
    ),
    "batched_matmul": (
        Function(
            (((3, "seq", 16), FLOAT), ((3, 16, 24), FLOAT)),
            lambda _, a, b: op.matmul(a, b),
        ),
        lambda a, b: [a @ b],
    ),
}


def layout_inputs(function: Function, rows: int) -> list[Array]:
    rng = np.random.default_rng(rows)
    extents = {"seq": rows, "past": 3}
    arrays = []
    for dims, dtype in function.arguments:
        size = [extents[d] if isinstance(d, str) else d for d in dims]
        values = rng.integers(0, 50, size) if dtype == "int32" else rng.standard_normal(size)
        arrays.append(values.astype(dtype))
    return arrays


@pytest.fixture(scope="module")
def layout_vm() -> relax.VirtualMachine:
    return virtual_machine(module({name: function for name, (function, _) in LAYOUT.items()}))


@pytest.mark.parametrize("name", LAYOUT)
@pytest.mark.parametrize("rows", [1, 6])
def test_layout(name: str, rows: int, layout_vm: relax.VirtualMachine) -> None:
    function, reference = LAYOUT[name]
    arrays = layout_inputs(function, rows)
    for expected, actual in zip(reference(*arrays), run(layout_vm, name, *arrays), strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
