"""The inputs of linears become results, everything else stays."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from relax_passes.expose_linear_inputs import ExposeLinearInputs, linear_inputs
from relax_passes.graph import results


@I.ir_module
class Before:
    @R.function
    def main(
        x: R.Tensor(("seq", 4), "float32"),
        cache: R.Tensor(("past", 6), "float32"),
        a: R.Tensor((4, 6), "float32"),
        b: R.Tensor((4, 6), "float32"),
        c: R.Tensor((6, 3), "float32"),
        norm: R.Tensor((6,), "float32"),
    ):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            left = R.matmul(x, a)
            right = R.matmul(x, b)
            both = R.multiply(left, right)
            scaled = R.multiply(both, norm)
            out = R.matmul(scaled, c)
            kept = R.concat((cache, left), axis=0)
            result = (out, kept)
            R.output(result)
        return result


@I.ir_module
class Expected:
    @R.function
    def main(
        x: R.Tensor(("seq", 4), "float32"),
        cache: R.Tensor(("past", 6), "float32"),
        a: R.Tensor((4, 6), "float32"),
        b: R.Tensor((4, 6), "float32"),
        c: R.Tensor((6, 3), "float32"),
        norm: R.Tensor((6,), "float32"),
    ):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            left = R.matmul(x, a)
            right = R.matmul(x, b)
            both = R.multiply(left, right)
            scaled = R.multiply(both, norm)
            out = R.matmul(scaled, c)
            kept = R.concat((cache, left), axis=0)
            result = (out, kept, x, scaled)
            R.output(result)
        return result


def _exposed() -> tvm.IRModule:
    passes = [ExposeLinearInputs(), relax.transform.DeadCodeElimination()]
    return tvm.transform.Sequential(passes)(Before)


def test_inputs_of_linears_follow_the_results() -> None:
    found = _exposed()
    relax.analysis.well_formed(found)
    tvm.ir.assert_structural_equal(found, Expected)


def test_linears_that_share_an_input_are_one_group() -> None:
    groups = linear_inputs(Before["main"])
    assert [(x.name, names) for x, names in groups.items()] == [("x", ("a", "b")), ("scaled", ("c",))]


def test_the_module_is_left_as_it_is() -> None:
    _exposed()
    assert len(results(Before["main"])) == 2


def test_exposed_values_are_the_inputs() -> None:
    target = tvm.target.Target("llvm")
    executable = relax.build(_exposed(), target, relax_pipeline=relax.get_default_pipeline(target))
    random = np.random.default_rng(0)
    shapes = [(5, 4), (2, 6), (4, 6), (4, 6), (6, 3), (6,)]
    x, cache, a, b, c, norm = (random.standard_normal(shape).astype(np.float32) for shape in shapes)
    arrays = map(tvm.runtime.tensor, (x, cache, a, b, c, norm))
    out, _, seen_x, seen_scaled = relax.VirtualMachine(executable, tvm.cpu())["main"](*arrays)
    np.testing.assert_array_equal(seen_x.numpy(), x)
    np.testing.assert_allclose(seen_scaled.numpy(), (x @ a) * (x @ b) * norm, rtol=1e-5)
    np.testing.assert_allclose(out.numpy(), seen_scaled.numpy() @ c, rtol=1e-4, atol=1e-5)
