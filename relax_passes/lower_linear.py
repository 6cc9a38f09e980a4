"""Integer matmuls to the packed kernel ``mllm.linear_w8a8``, one call for all linears that read the same
value; shadow linears read the same packed weight.

Runs after ``quantize_w8a8`` (it looks for ``matmul(xq int8, Wq int8 parameter) -> int32``) and before
``partition``, so the slices that undo joining and padding land in float functions and the NPU function is
one kernel call.

The packed parameter is named ``A.int8+B.int8.packed``: the packed forms of A and B, joined along the output
channels. Each N is padded to a multiple of 32 and K to a multiple of 4, once, in the weights. A shadow linear
gets the packed weight in place of its own, and as last argument the shape ``[B]``: its first block there.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import ir, relax

from .graph import LINEAR_W8A8, SHADOW_LINEAR, bindings, kernel_call, op_name, split_params, static_shape

PACKED = ".packed"
JOIN = "+"
N_LANES = 32
K_LANES = 4


@tvm.transform.module_pass(opt_level=0, name="LowerLinear")
class LowerLinear:
    """Replaces every integer matmul of ``main`` by a slice of a packed kernel call."""

    def transform_module(self, mod: ir.IRModule, _context: tvm.transform.PassContext) -> ir.IRModule:
        lowerer = _Lowerer(mod, mod["main"])
        mod = mod.clone()
        mod["main"] = lowerer.rewrite()
        return mod


def round_up(value: int, multiple: int) -> int:
    """``value`` rounded up to a multiple of ``multiple``."""
    return -(-value // multiple) * multiple


@relax.expr_functor.mutator
class _Lowerer(relax.PyExprMutator):
    def __init__(self, mod: ir.IRModule, function: relax.Function):
        super().__init__(mod)
        self.function = function
        self.inputs, self.parameters = split_params(function)
        self.groups = self._group_by_input()
        self.weights = {weight for group in self.groups.values() for weight in group}
        self.added: list[relax.Var] = []
        # Input value -> the kernel call's result, emitted where the first linear of the group stood.
        self.accumulators: dict[relax.Var, relax.Var] = {}
        # Weight -> its packed group and its first block there.
        self.packed: dict[relax.Var, tuple[relax.Var, int]] = {}

    def _group_by_input(self) -> dict[relax.Var, list[relax.Var]]:
        parameters = set(self.parameters)
        groups: dict[relax.Var, list[relax.Var]] = {}
        for binding in bindings(self.function):
            if is_integer_matmul(binding.value) and binding.value.args[1] in parameters:
                x, weight = binding.value.args
                groups.setdefault(x, []).append(weight)
        return groups

    def rewrite(self) -> relax.Function:
        body = self.visit_expr(self.function.body)
        kept = [p for p in self.parameters if p not in self.weights]
        attrs = self.function.attrs
        return relax.Function([*self.inputs, *kept, *self.added], body, self.function.ret_ty, True, attrs)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if op_name(call) == SHADOW_LINEAR and call.args[1][1] in self.packed:
            return self._shadow(call)
        if not is_integer_matmul(call) or call.args[1] not in self.weights:
            return super().visit_call_(call)
        x, weight = call.args
        if x not in self.accumulators:
            self.accumulators[x] = self._emit_kernel(self.visit_expr(x), self.groups[x])
        begin = self.packed[weight][1] * N_LANES
        return columns(self.accumulators[x], begin, begin + static_shape(weight)[1])

    def _shadow(self, call: relax.Call) -> relax.Expr:
        """The call with the packed weight; it comes after the weight's integer matmul."""
        residual, weight, *others = call.args[1]
        packed, first = self.packed[weight]
        arguments = [self.visit_expr(residual), packed, *map(self.visit_expr, others)]
        return kernel_call(SHADOW_LINEAR, [*arguments, relax.ShapeExpr([first])], call.ty_args[0])

    def _emit_kernel(self, x: relax.Var, group: list[relax.Var]) -> relax.Var:
        k = static_shape(group[0])[0]
        padded = round_up(k, K_LANES)
        if padded != k:
            x = self.builder_.emit(relax.op.nn.pad(x, [0, 0, 0, padded - k]))
        packed = packed_parameter(group)
        blocks = [column_blocks(member) for member in group]
        self.packed.update({member: (packed, sum(blocks[:i])) for i, member in enumerate(group)})
        self.added.append(packed)
        out = relax.TensorType((x.ty.shape.values[0], sum(blocks) * N_LANES), "int32")
        return self.builder_.emit(kernel_call(LINEAR_W8A8, [x, packed], out))


def packed_parameter(group: Sequence[relax.Var]) -> relax.Var:
    """The parameter with the packed forms of int8 weights [K, N], joined along the output channels."""
    k = static_shape(group[0])[0]
    blocks = sum(column_blocks(member) for member in group)
    name = JOIN.join(member.name for member in group) + PACKED
    shape = (blocks, round_up(k, K_LANES) // K_LANES, N_LANES, K_LANES)
    return relax.Var(name, relax.TensorType(shape, "uint8"))


def column_blocks(weight: relax.Var) -> int:
    """Blocks of 32 columns that a weight [K, N] takes, the last one padded."""
    return round_up(static_shape(weight)[1], N_LANES) // N_LANES


def is_integer_matmul(expr: relax.Expr) -> bool:
    """Whether ``expr`` is a matmul of int8 values to int32."""
    return (
        isinstance(expr, relax.Call)
        and expr.op == ir.Op.get("relax.matmul")
        and str(expr.attrs.out_dtype) == "int32"
    )


def columns(x: relax.Var, begin: int, end: int) -> relax.Expr:
    """``x[:, begin:end]``."""
    if (begin, end) == (0, int(x.ty.shape.values[1])):
        return x
    return relax.op.strided_slice(x, [1], [begin], [end], assume_inbound=True)
