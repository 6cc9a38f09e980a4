"""Partition and placement: functions shared by layers, caches kept out of them, levels that overlap."""

import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from relax_passes.errors import PassError
from relax_passes.partition import Partition
from relax_passes.place import Place


@I.ir_module
class Before:
    @R.function
    def main(
        x: R.Tensor(("seq", 8), "float32"),
        cache: R.Tensor(("past", 2, 4), "float32"),
        scale: R.Tensor((), "float32"),
        w1: R.Tensor((1, 2, 32, 4), "uint8"),
        s1: R.Tensor((8, 32), "float16"),
    ):
        R.func_attr({"num_input": 2})
        seq = T.int64()
        with R.dataflow():
            scaled = R.divide(x, scale)
            xq = R.astype(scaled, "int8")
            acc = R.call_dps_packed("mllm.linear_w8a8", (xq, w1), out_ty=R.Tensor((seq, 32), "int32"))
            shadow = R.call_dps_packed(
                "mllm.shadow_linear", (scaled, s1), out_ty=R.Tensor((seq, 32), "float32")
            )
            y = R.add(R.astype(acc, "float32"), shadow)
            flat = R.strided_slice(y, (1,), (0,), (8,))
            rows = R.reshape(flat, R.shape([seq, 2, 4]))
            whole = R.concat((cache, rows), axis=0)
            k = R.expand_dims(whole, axis=[0])
            q = R.reshape(flat, R.shape([1, seq, 2, 4]))
            a = R.nn.attention(q, k, k, causal_mask="BottomRight")
            o = R.reshape(a, R.shape([seq, 8]))
            oq = R.astype(R.divide(o, scale), "int8")
            acc2 = R.call_dps_packed("mllm.linear_w8a8", (oq, w1), out_ty=R.Tensor((seq, 32), "int32"))
            out = R.add(o, x)
            R.output(out, acc2, whole)
        return (out, acc2, whole)


@I.ir_module
class Expected:
    @R.function(private=True)
    def float_0(x: R.Tensor(("seq", 8), "float32"), scale: R.Tensor((), "float32")):
        R.func_attr({"kind": "float", "processor": "cpu"})
        with R.dataflow():
            scaled = R.divide(x, scale)
            xq = R.astype(scaled, "int8")
            gv = (scaled, xq)
            R.output(gv)
        return gv

    @R.function(private=True)
    def linear_8x32(xq: R.Tensor(("seq", 8), "int8"), w1: R.Tensor((1, 2, 32, 4), "uint8")):
        R.func_attr({"kind": "linear", "processor": "npu"})
        seq = T.int64()
        with R.dataflow():
            acc = R.call_dps_packed("mllm.linear_w8a8", (xq, w1), out_ty=R.Tensor((seq, 32), "int32"))
            gv: R.Tensor((seq, 32), "int32") = acc
            R.output(gv)
        return gv

    @R.function(private=True)
    def shadow_0(scaled: R.Tensor(("seq", 8), "float32"), s1: R.Tensor((8, 32), "float16")):
        R.func_attr({"kind": "shadow", "processor": "cpu"})
        seq = T.int64()
        with R.dataflow():
            out = R.call_dps_packed("mllm.shadow_linear", (scaled, s1), out_ty=R.Tensor((seq, 32), "float32"))
            gv: R.Tensor((seq, 32), "float32") = out
            R.output(gv)
        return gv

    @R.function(private=True)
    def float_1(acc: R.Tensor(("seq", 32), "int32"), shadow: R.Tensor(("seq", 32), "float32")):
        R.func_attr({"kind": "float", "processor": "cpu"})
        seq = T.int64()
        with R.dataflow():
            accf = R.astype(acc, "float32")
            y = R.add(accf, shadow)
            flat = R.strided_slice(y, (1,), (0,), (8,))
            rows = R.reshape(flat, R.shape([seq, 2, 4]))
            gv = (flat, rows)
            R.output(gv)
        return gv

    @R.function(private=True)
    def attention(
        whole: R.Tensor(("total", 2, 4), "float32"),
        flat: R.Tensor(("seq", 8), "float32"),
        scale: R.Tensor((), "float32"),
    ):
        R.func_attr({"kind": "dynamic", "processor": "cpu"})
        seq = T.int64()
        with R.dataflow():
            k = R.expand_dims(whole, axis=[0])
            q = R.reshape(flat, R.shape([1, seq, 2, 4]))
            a = R.nn.attention(q, k, k, causal_mask="BottomRight")
            o = R.reshape(a, R.shape([seq, 8]))
            step = R.divide(o, scale)
            oq = R.astype(step, "int8")
            gv = (o, oq)
            R.output(gv)
        return gv

    @R.function(private=True)
    def float_2(o: R.Tensor(("seq", 8), "float32"), x: R.Tensor(("seq", 8), "float32")):
        R.func_attr({"kind": "float", "processor": "cpu"})
        seq = T.int64()
        with R.dataflow():
            out = R.add(o, x)
            gv: R.Tensor((seq, 8), "float32") = out
            R.output(gv)
        return gv

    @R.function
    def main(
        x: R.Tensor(("seq", 8), "float32"),
        cache: R.Tensor(("past", 2, 4), "float32"),
        scale: R.Tensor((), "float32"),
        w1: R.Tensor((1, 2, 32, 4), "uint8"),
        s1: R.Tensor((8, 32), "float16"),
    ):
        R.func_attr({"num_input": 2})
        cls = Expected
        with R.dataflow():
            quantized = cls.float_0(x, scale)
            scaled = quantized[0]
            xq = quantized[1]
            acc = cls.linear_8x32(xq, w1)
            shadow = cls.shadow_0(scaled, s1)
            merged = cls.float_1(acc, shadow)
            flat = merged[0]
            rows = merged[1]
            whole = R.concat((cache, rows), axis=0)
            attended = cls.attention(whole, flat, scale)
            o = attended[0]
            oq = attended[1]
            acc2 = cls.linear_8x32(oq, w1)
            out = cls.float_2(o, x)
            gv = (out, acc2, whole)
            R.output(gv)
        return gv


def _partition(module):
    after = tvm.transform.Sequential([Partition(), Place()])(module)
    relax.analysis.well_formed(after)
    return after


def test_before_and_after():
    after = _partition(Before)
    assert {name.name_hint for name in after.get_global_vars()} == {
        name.name_hint for name in Expected.get_global_vars()
    }
    for name in Expected.get_global_vars():
        if name.name_hint != "main":
            tvm.ir.assert_structural_equal(after[name.name_hint], Expected[name], map_free_vars=True)
    tvm.ir.assert_structural_equal(after, Expected)


def test_equal_layers_share_functions():
    """Another layer of the same shapes adds calls, not functions."""
    two, three = _partition(_stack(2)), _partition(_stack(3))
    assert len(two.functions) == len(three.functions)
    first, layer, last = ["float_0"], ["linear_32x32", "float_1", "attention"], ["linear_32x32", "float_1"]
    assert _called(two["main"]) == [*first, *layer, *last, "attention_1"]
    assert _called(three["main"]) == [*first, *layer * 2, *last, "attention_1"]


def _stack(layers):
    """``layers`` blocks of: quantize, integer linear, dequantize, attention."""
    from tvm import tirx

    from relax_passes.graph import LINEAR_W8A8, kernel_call

    seq = tirx.Var("seq", "int64")
    x = relax.Var("x", relax.TensorType([seq, 32], "float32"))
    weights = [relax.Var(f"w.{i}", relax.TensorType([1, 8, 32, 4], "uint8")) for i in range(layers)]
    builder = relax.BlockBuilder()
    with builder.function("main", [x, *weights], {"num_input": 1}):
        with builder.dataflow():
            value = x
            for weight in weights:
                xq = builder.emit(relax.op.astype(value, "int8"))
                acc = builder.emit(
                    kernel_call(LINEAR_W8A8, [xq, weight], relax.TensorType([seq, 32], "int32"))
                )
                value = builder.emit(relax.op.add(relax.op.astype(acc, "float32"), value))
                # Ends the layer's float function; what it returns quantizes for the next layer.
                value = builder.emit(relax.op.nn.attention(*[_heads(value, seq)] * 3))
                value = builder.emit(relax.op.reshape(value, (seq, 32)))
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    return builder.get()


def _heads(value, seq):
    return relax.op.reshape(value, (1, seq, 4, 8))


def _called(function):
    from relax_passes.graph import bindings

    calls = [b.value for b in bindings(function) if isinstance(b.value, relax.Call)]
    return [getattr(c.op, "name_hint", None) or c.op.name for c in calls]


def test_place_needs_a_kind():
    with pytest.raises(PassError, match="function helper: expected a kind"):
        Place()(Unkinded)


@I.ir_module
class Unkinded:
    @R.function(private=True)
    def helper(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        return x

    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        y = Unkinded.helper(x)
        return y
