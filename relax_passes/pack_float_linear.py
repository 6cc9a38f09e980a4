"""Float linears to the kernel ``mllm.linear_f32``, whose weights are packed into panels of 32 columns.

Before: ``matmul(x, W)`` with a float32 parameter ``W`` [K, N]. After: ``linear_f32(x, W.panels)``, sliced to
N columns; ``W.panels`` [ceil(N / 32), K, 32] takes the place of ``W`` among the parameters. A weight that
anything else reads too stays as it is.
"""

from __future__ import annotations

import tvm
from tvm import ir, relax

from .graph import LINEAR_F32, bindings, kernel_call, op_name, operands, results, split_params, static_shape
from .lower_linear import N_LANES, column_blocks, columns

PANELS = ".panels"


@tvm.transform.module_pass(opt_level=0, name="PackFloatLinear")
class PackFloatLinear:
    """Replaces the float linears of ``main`` by calls of the packed kernel."""

    def transform_module(self, mod: ir.IRModule, _context: tvm.transform.PassContext) -> ir.IRModule:
        packer = _Packer(mod, mod["main"])
        mod = mod.clone()
        mod["main"] = packer.rewrite()
        return mod


@relax.expr_functor.mutator
class _Packer(relax.PyExprMutator):
    def __init__(self, mod: ir.IRModule, function: relax.Function):
        super().__init__(mod)
        self.function = function
        self.inputs, self.parameters = split_params(function)
        self.packed = {weight: _panels(weight) for weight in self._weights()}

    def _weights(self) -> set[relax.Var]:
        """Parameters that float linears read, and nothing else."""
        found, others = set(self.parameters), set(results(self.function))
        weights = set()
        for binding in bindings(self.function):
            reads = operands(binding.value)
            if _is_linear(binding.value) and reads[1] in found:
                weights.add(reads.pop(1))
            others.update(reads)
        return weights - others

    def rewrite(self) -> relax.Function:
        body = self.visit_expr(self.function.body)
        parameters = [self.packed.get(p, p) for p in self.parameters]
        return relax.Function(
            [*self.inputs, *parameters], body, self.function.ret_ty, True, self.function.attrs
        )

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if not _is_linear(call) or call.args[1] not in self.packed:
            return super().visit_call_(call)
        x, panels = self.visit_expr(call.args[0]), self.packed[call.args[1]]
        out = relax.TensorType([x.ty.shape.values[0], static_shape(panels)[0] * N_LANES], "float32")
        y = self.builder_.emit(kernel_call(LINEAR_F32, [x, panels], out))
        return columns(y, 0, static_shape(call.args[1])[1])


def _is_linear(expr: relax.Expr) -> bool:
    if op_name(expr) != "relax.matmul":
        return False
    return all(arg.ty.ndim == 2 and str(arg.ty.dtype) == "float32" for arg in expr.args)


def _panels(weight: relax.Var) -> relax.Var:
    shape = [column_blocks(weight), static_shape(weight)[0], N_LANES]
    return relax.Var(weight.name + PANELS, relax.TensorType(shape, "float32"))
