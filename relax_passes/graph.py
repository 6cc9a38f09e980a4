"""Reading and rebuilding a Relax function that is one straight-line dataflow block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tvm import ir, relax, tirx

from .errors import PassError

LINEAR_F32 = "mllm.linear_f32"
LINEAR_W8A8 = "mllm.linear_w8a8"
SHADOW_LINEAR = "mllm.shadow_linear"
MLP_W8A8 = "mllm.mlp_w8a8"


def bindings(function: relax.Function) -> list[relax.VarBinding]:
    """The bindings of a straight-line function, in order; raises PassError on control flow."""
    body = function.body
    if not isinstance(body, relax.SeqExpr):
        raise PassError(f"expected a function with a binding block, found {type(body).__name__}")
    found = [binding for block in body.blocks for binding in block.bindings]
    for binding in found:
        if not isinstance(binding, relax.VarBinding) or isinstance(binding.value, (relax.If, relax.Function)):
            raise PassError(f"value {binding.var.name}: only straight-line code is supported")
    return found


def split_params(function: relax.Function) -> tuple[list[relax.Var], list[relax.Var]]:
    """The function's inputs (its first ``num_input`` arguments) and its parameters (the rest)."""
    count = int(function.attrs["num_input"])
    return list(function.params[:count]), list(function.params[count:])


def op_name(expr: relax.Expr) -> str:
    """The op of a call (``relax.matmul``), the symbol of a named kernel, or the node's kind."""
    if not isinstance(expr, relax.Call):
        return type(expr).__name__
    if is_kernel_call(expr):
        return str(expr.args[0].global_symbol)
    return str(expr.op.name) if isinstance(expr.op, ir.Op) else type(expr.op).__name__


def is_kernel_call(expr: relax.Expr) -> bool:
    """Whether ``expr`` is a ``call_dps_packed`` of a named kernel."""
    return (
        isinstance(expr, relax.Call)
        and isinstance(expr.op, ir.Op)
        and expr.op.name == "relax.call_dps_packed"
        and isinstance(expr.args[0], relax.ExternFunc)
    )


def operands(expr: relax.Expr) -> list[relax.Expr]:
    """What a bound expression reads: its tensor operands, tuples opened, shapes and scalars left out."""
    if isinstance(expr, relax.Call):
        return [leaf for arg in expr.args for leaf in _leaves(arg)]
    if isinstance(expr, relax.TupleGetItem):
        return [expr.tuple_value]
    return list(_leaves(expr))


def _leaves(expr: relax.Expr) -> Iterator[relax.Expr]:
    if isinstance(expr, relax.Tuple):
        for field in expr.fields:
            yield from _leaves(field)
    elif isinstance(expr.ty, (relax.TensorType, relax.TupleType)):
        yield expr


def results(function: relax.Function) -> list[relax.Expr]:
    """The values a function returns, its result tuple opened (also when the tuple is bound to a variable)."""
    value = function.body.body
    bound = {binding.var: binding.value for binding in bindings(function)}
    while isinstance(value, relax.Var) and isinstance(bound.get(value), (relax.Var, relax.Tuple)):
        value = bound[value]
    return list(value.fields) if isinstance(value, relax.Tuple) else [value]


def kernel_call(symbol: str, args: Sequence[relax.Expr], out: relax.TensorType) -> relax.Call:
    """A call of a named kernel that a target binds to a PrimFunc."""
    return relax.call_dps_packed(symbol, list(args), out_ty=out)


def static_shape(expr: relax.Expr) -> list[int]:
    """The shape of a tensor whose extents are all constants; raises PassError otherwise."""
    shape = list(expr.ty.shape.values)
    if not all(isinstance(extent, tirx.IntImm) for extent in shape):
        raise PassError(f"value {expr.name}: expected a static shape, found {shape}")
    return [int(extent) for extent in shape]
