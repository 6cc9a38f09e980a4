"""Float linears to the packed kernel."""

import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from relax_passes.pack_float_linear import PackFloatLinear


def _pack(module):
    after = tvm.transform.Sequential([PackFloatLinear(), relax.transform.CanonicalizeBindings()])(module)
    relax.analysis.well_formed(after)
    return after


def test_weights_become_panels():
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor(("seq", 8), "float32"),
            a: R.Tensor((8, 12), "float32"),
            bias: R.Tensor((12,), "float32"),
            b: R.Tensor((12, 64), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.matmul(x, a)
                z = R.add(y, bias)
                out = R.matmul(z, b)
                R.output(out)
            return out

    @I.ir_module
    class Expected:
        @R.function
        def main(
            x: R.Tensor(("seq", 8), "float32"),
            a_panels: R.Tensor((1, 8, 32), "float32"),
            bias: R.Tensor((12,), "float32"),
            b_panels: R.Tensor((2, 12, 32), "float32"),
        ):
            R.func_attr({"num_input": 1})
            seq = T.int64()
            with R.dataflow():
                wide = R.call_dps_packed(
                    "mllm.linear_f32", (x, a_panels), out_ty=R.Tensor((seq, 32), "float32")
                )
                y = R.strided_slice(wide, (1,), (0,), (12,), assume_inbound=True)
                z = R.add(y, bias)
                out = R.call_dps_packed(
                    "mllm.linear_f32", (z, b_panels), out_ty=R.Tensor((seq, 64), "float32")
                )
                R.output(out)
            return out

    after = _pack(Before)
    tvm.ir.assert_structural_equal(after, Expected)
    assert [p.name for p in after["main"].params] == ["x", "a.panels", "bias", "b.panels"]


def test_other_matmuls_and_shared_weights_stay():
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor(("seq", 8), "float32"),
            q: R.Tensor(("seq", 8), "int8"),
            shared: R.Tensor((8, 8), "float32"),
            integers: R.Tensor((8, 8), "int8"),
            returned: R.Tensor((8, 8), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                y = R.matmul(x, shared)
                z = R.add(shared, shared)
                i = R.matmul(q, integers, out_dtype="int32")
                t = R.matmul(x, returned)
                w = R.matmul(y, R.permute_dims(z))
                R.output(w, i, t)
            return (w, i, t, returned)

    tvm.ir.assert_structural_equal(PackFloatLinear()(Before), Before)
