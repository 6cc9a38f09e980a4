"""How the CPU target implements Relax ops where the stock legalization is slow or imprecise."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import relax, te, tirx
from tvm_ffi import structural_equal

from targets.cpu import vector_math
from targets.cpu.kernel import INJECTIVE_PATTERN, TRANSCENDENTAL
from targets.cpu.legalize_attention import legalize_attention

Legalizer = Callable[[relax.BlockBuilder, tvm.ir.Call], relax.Expr]


def legalize_map() -> dict[str, Legalizer]:
    """Relax op name -> legalizer, for ``relax.transform.LegalizeOps``."""
    functions = {
        "relax.exp": vector_math.exp,
        "relax.sigmoid": vector_math.sigmoid,
        "relax.tanh": vector_math.tanh,
        "relax.erf": vector_math.erf,
        "relax.nn.silu": vector_math.silu,
        "relax.nn.gelu": vector_math.gelu,
        "relax.nn.gelu_tanh": vector_math.gelu_tanh,
    }
    legalizers = {
        name: _elementwise(name, function, transcendental=True) for name, function in functions.items()
    }
    legalizers["relax.round"] = _elementwise("relax.round", vector_math.round_half_even, transcendental=False)
    return legalizers | {
        "relax.reshape": _reshape,
        "relax.nn.softmax": _softmax,
        "relax.nn.rms_norm": _rms_norm,
        "relax.nn.layer_norm": _layer_norm,
        "relax.nn.attention": legalize_attention,
    }


def _stock(name: str, bb: relax.BlockBuilder, call: tvm.ir.Call) -> relax.Expr:
    return tvm.ir.Op.get(name).get_attr("FLegalize")(bb, call)


def _elementwise(name: str, function: Callable[[tirx.Expr], tirx.Expr], transcendental: bool) -> Legalizer:
    def compute(x: te.Tensor) -> te.Tensor:
        attrs = {TRANSCENDENTAL: True} if transcendental else {}
        return te.compute(x.shape, lambda *i: function(x(*i)), attrs=attrs)

    def legalize(bb: relax.BlockBuilder, call: tvm.ir.Call) -> relax.Expr:
        if call.args[0].ty.dtype != "float32":
            return _stock(name, bb, call)
        return bb.call_te(compute, call.args[0], primfunc_name_hint=name.rpartition(".")[2])

    return legalize


def _split_last_axis(width: int) -> Callable[[te.Tensor], te.Tensor]:
    def compute(x: te.Tensor) -> te.Tensor:
        rows, columns = x.shape
        shape = (rows, columns // width, width)
        return te.compute(shape, lambda row, head, i: x(row, head * width + i), name="reshape")

    return compute


def _reshape(bb: relax.BlockBuilder, call: tvm.ir.Call) -> relax.Expr:
    """[seq, heads * dim] to heads without a division: FuseOps fuses it then, and alone it still is a view."""
    old, new = list(call.args[0].ty.shape), list(call.ty.shape)
    static = all(isinstance(extent, tirx.IntImm) for extent in (*old[1:], *new[1:]))
    if (len(old), len(new)) != (2, 3) or not static or not structural_equal(old[0], new[0]):
        return _stock("relax.reshape", bb, call)
    return bb.call_te(_split_last_axis(int(new[2])), call.args[0], primfunc_name_hint="reshape")


def _softmax_over_last_axis(x: te.Tensor) -> te.Tensor:
    rows, width = x.shape[:-1], x.shape[-1]
    first, second = te.reduce_axis((0, width), "k"), te.reduce_axis((0, width), "k")
    highest = te.compute(rows, lambda *i: te.max(x(*i, first), axis=first))
    exps = te.compute(
        x.shape, lambda *i: vector_math.exp(x(*i) - highest(*i[:-1])), attrs={TRANSCENDENTAL: True}
    )
    total = te.compute(rows, lambda *i: te.sum(exps(*i, second), axis=second))
    return te.compute(x.shape, lambda *i: exps(*i) / total(*i[:-1]))


def _softmax(bb: relax.BlockBuilder, call: tvm.ir.Call) -> relax.Expr:
    ty = call.args[0].ty
    if ty.dtype != "float32" or int(call.attrs.axis) not in (-1, ty.ndim - 1):
        return _stock("relax.nn.softmax", bb, call)
    return bb.call_te(_softmax_over_last_axis, call.args[0], primfunc_name_hint="softmax")


def _rms_norm_over_last_axis(eps: float) -> Callable[..., te.Tensor]:
    def compute(x: te.Tensor, weight: te.Tensor) -> te.Tensor:
        rows, width = x.shape[:-1], x.shape[-1]
        k = te.reduce_axis((0, width), "k")
        squares = te.compute(rows, lambda *i: te.sum(x(*i, k) * x(*i, k), axis=k))
        mean = tirx.const(int(width), "float32")
        scale = te.compute(rows, lambda *i: te.rsqrt(squares(*i) / mean + tirx.const(eps, "float32")))
        return te.compute(x.shape, lambda *i: scale(*i[:-1]) * x(*i) * weight(i[-1]))

    return compute


def _rms_norm(bb: relax.BlockBuilder, call: tvm.ir.Call) -> relax.Expr:
    if not _is_over_last_axis(call):
        return _stock("relax.nn.rms_norm", bb, call)
    return _norm(bb, _rms_norm_over_last_axis(float(call.attrs.epsilon)), call, "rms_norm")


def _is_over_last_axis(call: tvm.ir.Call) -> bool:
    ty = call.args[0].ty
    axes = [int(axis) % ty.ndim for axis in call.attrs.axes]
    return ty.dtype == "float32" and axes == [ty.ndim - 1] and isinstance(ty.shape[-1], tirx.IntImm)


def _norm(
    bb: relax.BlockBuilder, compute: Callable[..., te.Tensor], call: tvm.ir.Call, name: str
) -> relax.Expr:
    """A norm as FuseOps is to see it: it fuses nothing before a reduction, but one kernel goes row by row."""
    attrs = {"op_pattern": INJECTIVE_PATTERN}
    return bb.call_te(compute, *call.args, primfunc_name_hint=name, primfunc_attrs=attrs)


def _layer_norm_over_last_axis(eps: float) -> Callable[..., te.Tensor]:
    def compute(x: te.Tensor, weight: te.Tensor, bias: te.Tensor) -> te.Tensor:
        rows, width = x.shape[:-1], x.shape[-1]
        first, second = te.reduce_axis((0, width), "k"), te.reduce_axis((0, width), "k")
        share = tirx.const(1.0 / int(width), "float32")
        total = te.compute(rows, lambda *i: te.sum(x(*i, first), axis=first))
        centred = te.compute(x.shape, lambda *i: x(*i) - total(*i[:-1]) * share)
        # Of the centred values: the difference of two sums of squares would cancel.
        squares = te.compute(rows, lambda *i: te.sum(centred(*i, second) * centred(*i, second), axis=second))
        scale = te.compute(rows, lambda *i: te.rsqrt(squares(*i) * share + tirx.const(eps, "float32")))
        return te.compute(x.shape, lambda *i: centred(*i) * scale(*i[:-1]) * weight(i[-1]) + bias(i[-1]))

    return compute


def _layer_norm(bb: relax.BlockBuilder, call: tvm.ir.Call) -> relax.Expr:
    if not _is_over_last_axis(call) or not (call.attrs.center and call.attrs.scale):
        return _stock("relax.nn.layer_norm", bb, call)
    return _norm(bb, _layer_norm_over_last_axis(float(call.attrs.epsilon)), call, "layer_norm")
