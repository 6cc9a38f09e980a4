"""W8A8 rewriting: before and after, and the numbers of the rewritten module."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T
from tvm_ffi import register_global_func

from relax_passes.errors import PassError
from relax_passes.graph import bindings, op_name
from relax_passes.quantize_w8a8 import LinearScheme, QuantizeW8A8

SHADOW, CLIPPED = LinearScheme(), LinearScheme(shadow=False)


@I.ir_module
class Before:
    @R.function
    def main(
        x: R.Tensor(("seq", 8), "float32"),
        a: R.Tensor((8, 4), "float32"),
        b: R.Tensor((8, 6), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            p = R.matmul(x, a)
            q = R.matmul(x, b)
            r = R.concat((p, q), axis=1)
            R.output(r)
        return r


@I.ir_module
class Expected:
    @R.function
    def main(
        x: R.Tensor(("seq", 8), "float32"),
        a_input_scale: R.Tensor((), "float32"),
        a_int8: R.Tensor((8, 4), "int8"),
        a_output_scale: R.Tensor((4,), "float32"),
        a_hot_slot: R.Tensor((8,), "int32"),
        a_hot: R.Tensor((1, 4), "float16"),
        a_shadow_counts: R.Tensor((4,), "int64"),
        b_int8: R.Tensor((8, 6), "int8"),
        b_output_scale: R.Tensor((6,), "float32"),
    ):
        R.func_attr({"num_input": 1})
        seq = T.int64()
        with R.dataflow():
            scaled = R.divide(x, a_input_scale)
            rounded = R.round(scaled)
            clipped = R.clip(rounded, T.float64(-127.0), T.float64(127.0))
            xq = R.astype(clipped, "int8")
            excess = R.subtract(scaled, clipped)
            inside = R.equal(rounded, clipped)
            residual = R.where(inside, R.const(0.0, "float32"), excess)
            acc_a = R.matmul(xq, a_int8, out_dtype="int32")
            float_a = R.astype(acc_a, "float32")
            y_a = R.multiply(float_a, a_output_scale)
            shadow = R.call_dps_packed(
                "mllm.shadow_linear",
                (residual, a_int8, a_output_scale, a_input_scale, a_hot_slot, a_hot, a_shadow_counts),
                out_ty=R.Tensor((seq, 4), "float32"),
            )
            p = R.add(y_a, shadow)
            acc_b = R.matmul(xq, b_int8, out_dtype="int32")
            float_b = R.astype(acc_b, "float32")
            q = R.multiply(float_b, b_output_scale)
            r = R.concat((p, q), axis=1)
            R.output(r)
        return r


def _quantize(module, linears):
    passes = [QuantizeW8A8(linears), relax.transform.CanonicalizeBindings()]
    return tvm.transform.Sequential(passes)(module)


def test_before_and_after():
    after = _quantize(Before, {"a": SHADOW, "b": CLIPPED})
    relax.analysis.well_formed(after)
    tvm.ir.assert_structural_equal(after, Expected)


def test_parameter_names():
    after = _quantize(Before, {"a": SHADOW, "b": CLIPPED})
    names = [p.name for p in after["main"].params]
    assert names == [
        "x", "a.input_scale", "a.int8", "a.output_scale", "a.hot_slot", "a.hot", "a.shadow_counts", "b.int8",
        "b.output_scale",
    ]  # fmt: skip


def test_unquantized_linear_stays():
    after = _quantize(Before, {"b": CLIPPED})
    x, _ = after["main"].params[:2]
    linears = [b.value for b in bindings(after["main"]) if op_name(b.value) == "relax.matmul"]
    assert [linear.args[1].name for linear in linears] == ["a", "b.int8"]
    assert linears[0].args[0].same_as(x)


def test_unknown_weight_is_an_error():
    with pytest.raises(PassError, match="not the weight of a linear of main: c"):
        _quantize(Before, {"a": SHADOW, "c": SHADOW})


def test_residual_makes_up_for_clipping():
    """With the shadow path the result is the float result minus rounding, however far x exceeds the scale."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 8)).astype("float32")
    x[2, 3] = 200.0
    x[4, 0] = -31.0
    a = rng.normal(size=(8, 4)).astype("float16").astype("float32")
    scale = np.float32(3.0 / 127)
    weight_scale = np.abs(a).max(axis=0) / np.float32(127)
    int8 = np.rint(a / weight_scale).astype("int8")

    module = _quantize(Before, {"a": LinearScheme(hot_rows=2), "b": CLIPPED})
    register_global_func("mllm.shadow_linear", _numpy_shadow_linear, override=True)
    target = tvm.target.Target({"kind": "llvm"})
    vm = relax.VirtualMachine(
        relax.build(module, target, relax_pipeline=relax.get_default_pipeline(target)), tvm.cpu()
    )
    # Channel 3 is hot, 0 is cold.
    slots = np.full(8, -1, "int32")
    slots[3] = 1
    parameters = [
        scale, int8, scale * weight_scale, slots, a[[7, 3]].astype("float16"), np.zeros(4, "int64"),
        np.zeros((8, 6), "int8"), np.ones(6, "float32"),
    ]  # fmt: skip
    tensors = [tvm.runtime.tensor(np.asarray(value)) for value in [x, *parameters]]
    result = vm["main"](*tensors).numpy()[:, :4]
    exact = x @ a
    assert np.abs(exact[2]).max() > 100
    noise = np.square(result - exact).sum() / np.square(exact).sum()
    assert -10 * np.log10(noise) > 45
    # The worst error is rounding alone: half a step of each operand, summed over the 8 channels.
    step = 0.5 * scale * np.abs(a).sum(axis=0) + 0.5 * weight_scale * np.minimum(np.abs(x), 3).sum(
        axis=1, keepdims=True
    )
    # What takes a cold row has the rounding of that row besides.
    step[4] += 0.5 * weight_scale * 31
    assert (np.abs(result - exact) <= 1.1 * step + 1e-3).all()


def _numpy_shadow_linear(*tensors):
    *arguments, out = tensors
    residual, int8, column_scale, step, slots, hot, _ = (tensor.numpy() for tensor in arguments)
    rows = np.where((slots < 0)[:, None], int8 * column_scale / step, hot[slots].astype("float32"))
    out.copyfrom((residual * step @ rows).astype("float32"))
