"""Makes the inputs of linears results of ``main``, for calibration.

A linear is ``matmul(x, W)`` with a parameter ``W`` of shape [K, N]. Runs on the imported module, before
``quantize_w8a8``; the linears it finds are those ``quantize_w8a8`` can rewrite.
"""

from __future__ import annotations

import tvm
from tvm import ir, relax

from .graph import bindings, op_name, results, split_params


def linear_inputs(function: relax.Function) -> dict[relax.Var, tuple[str, ...]]:
    """The input of each linear -> the names of the weights that multiply it, in order of first use."""
    _, parameters = split_params(function)
    weights = {p: p.name for p in parameters if len(p.ty.shape.values) == 2}
    found: dict[relax.Var, tuple[str, ...]] = {}
    for binding in bindings(function):
        if op_name(binding.value) != "relax.matmul":
            continue
        x, weight = binding.value.args
        if weight in weights:
            found[x] = (*found.get(x, ()), weights[weight])
    return found


@tvm.transform.module_pass(opt_level=0, name="ExposeLinearInputs")
class ExposeLinearInputs:
    """``main`` returns the inputs of its linears too: after its own results, in ``linear_inputs`` order."""

    def transform_module(self, mod: ir.IRModule, _context: tvm.transform.PassContext) -> ir.IRModule:
        exposed = mod.clone()
        exposed["main"] = _expose(mod["main"])
        return exposed


def _expose(function: relax.Function) -> relax.Function:
    returned = relax.Tuple([*results(function), *linear_inputs(function)])
    result = relax.Var("exposed", returned.ty)
    block = relax.DataflowBlock([*bindings(function), relax.VarBinding(result, returned)])
    body = relax.SeqExpr([block], result)
    return relax.Function(list(function.params), body, returned.ty, True, function.attrs)
