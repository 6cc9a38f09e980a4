"""Integer matmuls to one packed kernel call a quantized input."""

import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from relax_passes.lower_linear import LowerLinear


def _lower(module):
    passes = [LowerLinear(), relax.transform.CanonicalizeBindings()]
    after = tvm.transform.Sequential(passes)(module)
    relax.analysis.well_formed(after)
    return after


def test_linears_of_one_input_become_one_call():
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor(("seq", 8), "int8"),
            z: R.Tensor(("seq", 8), "int8"),
            a: R.Tensor((8, 12), "int8"),
            b: R.Tensor((8, 32), "int8"),
            c: R.Tensor((8, 32), "int8"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                p = R.matmul(x, a, out_dtype="int32")
                r = R.matmul(z, c, out_dtype="int32")
                q = R.matmul(x, b, out_dtype="int32")
                s = R.add(q, r)
                R.output(p, s)
            return (p, s)

    @I.ir_module
    class Expected:
        @R.function
        def main(
            x: R.Tensor(("seq", 8), "int8"),
            z: R.Tensor(("seq", 8), "int8"),
            ab: R.Tensor((2, 2, 32, 4), "uint8"),
            c: R.Tensor((1, 2, 32, 4), "uint8"),
        ):
            R.func_attr({"num_input": 2})
            seq = T.int64()
            with R.dataflow():
                acc = R.call_dps_packed("mllm.linear_w8a8", (x, ab), out_ty=R.Tensor((seq, 64), "int32"))
                p = R.strided_slice(acc, (1,), (0,), (12,), assume_inbound=True)
                r = R.call_dps_packed("mllm.linear_w8a8", (z, c), out_ty=R.Tensor((seq, 32), "int32"))
                q = R.strided_slice(acc, (1,), (32,), (64,), assume_inbound=True)
                s = R.add(q, r)
                R.output(p, s)
            return (p, s)

    after = _lower(Before)
    tvm.ir.assert_structural_equal(after, Expected)
    assert [p.name for p in after["main"].params[2:]] == ["a+b.packed", "c.packed"]


def test_shadows_read_the_packed_weight_from_their_first_block():
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor(("seq", 8), "int8"),
            residual: R.Tensor(("seq", 8), "float32"),
            a: R.Tensor((8, 40), "int8"),
            b: R.Tensor((8, 32), "int8"),
            hot: R.Tensor((1, 32), "float16"),
        ):
            R.func_attr({"num_input": 2})
            seq = T.int64()
            with R.dataflow():
                p = R.matmul(x, a, out_dtype="int32")
                q = R.matmul(x, b, out_dtype="int32")
                shadow = R.call_dps_packed(
                    "mllm.shadow_linear", (residual, b, hot), out_ty=R.Tensor((seq, 32), "float32")
                )
                R.output(p, q, shadow)
            return (p, q, shadow)

    @I.ir_module
    class Expected:
        @R.function
        def main(
            x: R.Tensor(("seq", 8), "int8"),
            residual: R.Tensor(("seq", 8), "float32"),
            hot: R.Tensor((1, 32), "float16"),
            ab: R.Tensor((3, 2, 32, 4), "uint8"),
        ):
            R.func_attr({"num_input": 2})
            seq = T.int64()
            with R.dataflow():
                acc = R.call_dps_packed("mllm.linear_w8a8", (x, ab), out_ty=R.Tensor((seq, 96), "int32"))
                p = R.strided_slice(acc, (1,), (0,), (40,), assume_inbound=True)
                q = R.strided_slice(acc, (1,), (64,), (96,), assume_inbound=True)
                shadow = R.call_dps_packed(
                    "mllm.shadow_linear",
                    (residual, ab, hot, R.shape([2])),
                    out_ty=R.Tensor((seq, 32), "float32"),
                )
                R.output(p, q, shadow)
            return (p, q, shadow)

    tvm.ir.assert_structural_equal(_lower(Before), Expected)


def test_reduction_axis_is_padded_to_four():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor(("seq", 6), "int8"), a: R.Tensor((6, 32), "int8")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                p = R.matmul(x, a, out_dtype="int32")
                R.output(p)
            return p

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor(("seq", 6), "int8"), a: R.Tensor((1, 2, 32, 4), "uint8")):
            R.func_attr({"num_input": 1})
            seq = T.int64()
            with R.dataflow():
                padded = R.nn.pad(x, (0, 0, 0, 2))
                p = R.call_dps_packed("mllm.linear_w8a8", (padded, a), out_ty=R.Tensor((seq, 32), "int32"))
                R.output(p)
            return p

    tvm.ir.assert_structural_equal(_lower(Before), Expected)


def test_float_and_weightless_matmuls_stay():
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor(("seq", 8), "float32"),
            a: R.Tensor((8, 32), "float32"),
            y: R.Tensor((8, "past"), "int8"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                p = R.matmul(x, a)
                R.output(p)
            return p

    tvm.ir.assert_structural_equal(_lower(Before), Before)
