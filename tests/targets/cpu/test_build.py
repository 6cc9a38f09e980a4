"""Lowering, building and exporting modules of many functions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op

from targets.cpu import build as cpu_build
from targets.cpu.build import build, export_library, load_vm, lower
from targets.cpu.errors import LoweringError
from targets.cpu.target import cpu_target
from targets.errors import TargetError, ToolchainError
from targets.packing import pack_weight_f32
from tests.targets.cpu.helpers import Array, Function, module, run, snr_db, vectorized_loops
from tests.targets.cpu.test_linear import pack

FLOAT = "float32"
SCALE = np.float32(0.05)
X = (("seq", 64), FLOAT)


def shape(*dims: int | tirx.Var) -> relax.ShapeExpr:
    return relax.ShapeExpr(list(dims))


def quantize(_dims: dict[str, tirx.Var], x: relax.Expr) -> tuple[relax.Expr, ...]:
    scale = relax.const(SCALE)
    rounded = op.round(op.divide(x, scale))
    clipped = op.clip(rounded, -127, 127)
    rest = op.subtract(op.divide(x, scale), clipped)
    residual = op.where(op.equal(rounded, clipped), relax.const(0.0, FLOAT), rest)
    return op.astype(clipped, "int8"), residual


def dequantize(
    _dims: dict[str, tirx.Var], y: relax.Expr, scale: relax.Expr, shadow: relax.Expr, gate: relax.Expr
) -> tuple[relax.Expr, ...]:
    value = op.add(op.multiply(op.astype(y, FLOAT), scale), shadow)
    return value, op.multiply(op.nn.silu(value), gate)


def call_linear(dims: dict[str, tirx.Var], x: relax.Expr, w: relax.Expr) -> relax.Expr:
    return relax.call_dps_packed("mllm.linear_w8a8", [x, w], relax.TensorType([dims["seq"], 96], "int32"))


def call_float_linear(dims: dict[str, tirx.Var], x: relax.Expr, w: relax.Expr) -> relax.Expr:
    return relax.call_dps_packed("mllm.linear_f32", [x, w], relax.TensorType([dims["seq"], 96], FLOAT))


def call_shadow(dims: dict[str, tirx.Var], *arguments: relax.Expr) -> relax.Expr:
    out = relax.TensorType([dims["seq"], 96], FLOAT)
    return relax.call_dps_packed("mllm.shadow_linear", [*arguments, shape(0)], out)


def shadow_arguments(hot: str) -> tuple[tuple[tuple[int | str, ...], str], ...]:
    weight = (((3, 16, 32, 4), "uint8"), ((96,), FLOAT), ((), FLOAT))
    return (X, *weight, ((64,), "int32"), ((64, 96), hot), ((4,), "int64"))


def attend(
    dims: dict[str, tirx.Var], q: relax.Expr, *caches: relax.Expr, causal_mask: str = "BottomRight"
) -> relax.Expr:
    query = op.reshape(q, shape(1, dims["seq"], 4, 16))
    keys, values = (op.expand_dims(cache, 0) for cache in caches)
    out = op.nn.attention(query, keys, values, causal_mask=causal_mask)
    return op.reshape(out, shape(dims["seq"], 64))


CACHE = (("total", 2, 16), FLOAT)
FUNCTIONS = {
    "quantize": Function((X,), quantize),
    "dequantize": Function(
        ((("seq", 96), "int32"), ((96,), FLOAT), (("seq", 96), FLOAT), (("seq", 96), FLOAT)), dequantize
    ),
    "linear_64x96": Function(((("seq", 64), "int8"), ((3, 16, 32, 4), "uint8")), call_linear),
    "shadow_64x96": Function(shadow_arguments("float16"), call_shadow),
    "float_linear": Function((X, ((3, 64, 32), FLOAT)), call_float_linear),
    "attend": Function((X, CACHE, CACHE), attend),
}


@pytest.fixture(scope="module")
def mod() -> tvm.IRModule:
    return module(FUNCTIONS)


@pytest.fixture(scope="module")
def executable(mod: tvm.IRModule) -> relax.VMExecutable:
    return build(mod, cpu_target())


@pytest.fixture(scope="module")
def vm(executable: relax.VMExecutable) -> relax.VirtualMachine:
    return relax.VirtualMachine(executable, tvm.cpu(), memory_cfg="naive")


def quantized_linear(vm: relax.VirtualMachine, x: Array, w: Array, w_scale: Array) -> Array:
    xq, residual = run(vm, "quantize", x)
    assert (xq.dtype, residual.dtype) == (np.int8, np.float32)
    w_quantized = np.clip(np.rint(w / w_scale), -127, 127).astype(np.int8)
    accumulators = run(vm, "linear_64x96", xq, pack(w_quantized))[0]
    slots = np.where(np.arange(64) % 2, np.int32(-1), np.arange(64, dtype=np.int32))
    rows = (SCALE * w_scale, SCALE, slots, w.astype(np.float16), np.zeros(4, np.int64))
    shadow = run(vm, "shadow_64x96", residual, pack(w_quantized), *rows)[0]
    return run(vm, "dequantize", accumulators, SCALE * w_scale, shadow, np.ones_like(shadow))[0]


def test_functions_make_a_quantized_linear(vm: relax.VirtualMachine) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((11, 64), np.float32), rng.standard_normal((64, 96), np.float32)
    x[[2, 7], [5, 40]] = [60.0, -45.0]
    w_scale = np.abs(w).max(axis=0) / np.float32(127)
    exact = x.astype(np.float64) @ w
    assert snr_db(exact, quantized_linear(vm, x, w, w_scale)) > 35
    np.testing.assert_allclose(run(vm, "float_linear", x, pack_weight_f32(w))[0], exact, atol=1e-3)


def test_the_residual_is_what_clipping_lost(vm: relax.VirtualMachine) -> None:
    x = np.zeros((2, 64), np.float32)
    x[1, :3] = [6.35, 7.0, -9.0]
    xq, residual = run(vm, "quantize", x)
    np.testing.assert_array_equal(xq[1, :4], [127, 127, -127, 0])
    np.testing.assert_allclose(residual[1, :4], [0, 13, -53, 0], atol=1e-4)
    assert np.count_nonzero(residual) == 2


def test_attention_with_a_cache(vm: relax.VirtualMachine) -> None:
    rng = np.random.default_rng(1)
    q = rng.standard_normal((20, 64), np.float32)
    k, v = rng.standard_normal((2, 50, 2, 16), np.float32)
    whole = run(vm, "attend", q, k, v)[0]
    rows = [run(vm, "attend", q[i : i + 1], k[: 31 + i], v[: 31 + i])[0] for i in range(20)]
    np.testing.assert_array_equal(np.concatenate(rows), whole)
    weights = np.exp(k[:31, 1].astype(np.float64) @ q[0, 48:] / 4)
    np.testing.assert_allclose(whole[0, 48:], weights @ v[:31, 1] / weights.sum(), rtol=1e-5, atol=1e-6)


def test_lowering_leaves_no_op_and_no_plain_function(mod: tvm.IRModule) -> None:
    before = mod.script()
    lowered = lower(mod, cpu_target())
    assert mod.script() == before
    names = {g.name_hint for g, f in lowered.functions_items() if isinstance(f, relax.Function)}
    assert names == set(FUNCTIONS)
    for name in names:
        calls = [line for line in lowered[name].script().splitlines() if "R." in line and "= " in line]
        assert all(
            "R.call_tir" in line or "R.Tuple" in line for line in calls if " R." in line.split("= ")[1]
        )
    kernels = {g.name_hint: f for g, f in lowered.functions_items() if isinstance(f, tirx.PrimFunc)}
    assert {"linear_w8a8", "shadow_linear", "linear_f32", "attention"} <= set(kernels)
    plain = [name for name, f in kernels.items() if not vectorized_loops(f)]
    # linear_w8a8 has vectors spelled out besides; these two only change a shape and become views.
    assert [name for name in plain if not name.startswith(("reshape", "expand_dims"))] == []


def test_equal_kernels_are_shared() -> None:
    functions = {f"f{i}": FUNCTIONS[name] for i, name in enumerate(["quantize", "float_linear"] * 3)}
    one = lower(module(dict(list(functions.items())[:2])), cpu_target())
    many = lower(module(functions), cpu_target())
    assert len(many.get_global_vars()) - len(functions) == len(one.get_global_vars()) - 2


def test_export_and_load(executable: relax.VMExecutable, vm: relax.VirtualMachine, tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    export_library(executable, path)
    assert [file.name for file in tmp_path.iterdir()] == ["library.so"]
    loaded = load_vm(path)
    x = np.random.default_rng(2).standard_normal((5, 64), np.float32)
    for expected, actual in zip(run(vm, "quantize", x), run(loaded, "quantize", x), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"no CPU library at .*missing\.so"):
        load_vm(tmp_path / "missing.so")


def test_a_failing_linker_leaves_no_file(
    executable: relax.VMExecutable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no such thing as ziglang")
    monkeypatch.setattr(cpu_build.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ToolchainError, match="no such thing as ziglang"):
        export_library(executable, tmp_path / "library.so")
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "depth": (
        Function(((("seq", 60), "int8"), ((3, 16, 32, 4), "uint8")), call_linear),
        r"expected \[seq, 64\]",
    ),
    "layout": (
        Function(((("seq", 64), "int8"), ((6, 16, 16, 4), "uint8")), call_linear),
        "expected x .* uint8",
    ),
    "signs": (
        Function(((("seq", 64), "int8"), ((3, 16, 32, 4), "int8")), call_linear),
        "expected x .* uint8",
    ),
    "panels": (Function((X, ((6, 64, 16), FLOAT)), call_float_linear), "expected x .* float32"),
    "rows": (Function(shadow_arguments("int8"), call_shadow), "expected float16 or float32"),
    "mask": (
        Function((X, CACHE, CACHE), lambda d, *x: attend(d, *x, causal_mask="TopLeft")),
        "expected causal_mask None or 'BottomRight'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_operand_is_refused(name: str) -> None:
    function, message = REFUSED[name]
    with pytest.raises(LoweringError, match=message):
        lower(module({name: function}), cpu_target())
