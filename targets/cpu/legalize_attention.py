"""Which of the attention kernels a call of ``relax.nn.attention`` becomes."""

from __future__ import annotations

import tvm
from tvm import relax, tirx

from targets.cpu.attention import attention
from targets.cpu.attention_output import Quantization
from targets.cpu.errors import LoweringError


def legalize_attention(bb: relax.BlockBuilder, call: tvm.ir.Call) -> relax.Expr:
    """``relax.nn.attention`` over [1, length, heads, head_dim] float32; raises LoweringError for another."""
    return relax.call_tir(bb.add_func(attention_kernel(call), "attention"), list(call.args), out_ty=call.ty)


def attention_kernel(call: tvm.ir.Call, quantization: Quantization | None = None) -> tirx.PrimFunc:
    """The kernel of a ``relax.nn.attention``, its result quantized or not; raises LoweringError likewise."""
    q, k, v = (arg.ty for arg in call.args[:3])
    _check_attention(call, q, k, v)
    heads, kv_heads, head_dim = int(q.shape[2]), int(k.shape[2]), int(q.shape[3])
    scale = float(call.attrs.scale) if call.attrs.scale is not None else head_dim**-0.5
    window = int(call.attrs.window_size) if call.attrs.window_size is not None else 0
    is_causal = call.attrs.causal_mask is not None
    return attention(heads, kv_heads, head_dim, scale, is_causal, window, quantization)


def _check_attention(call: tvm.ir.Call, *operands: relax.TensorType) -> None:
    mask, window = call.attrs.causal_mask, call.attrs.window_size
    if mask not in (None, "BottomRight") or (window is not None and (mask is None or int(window) < 1)):
        raise LoweringError(
            f"attention with causal_mask={mask}, window_size={window}: "
            f"expected causal_mask None or 'BottomRight', and a positive window with the latter only"
        )
    for ty in operands:
        static = all(isinstance(ty.shape[axis], tirx.IntImm) for axis in (0, 2, 3))
        if ty.dtype != "float32" or not static or int(ty.shape[0]) != 1:
            raise LoweringError(f"attention over {ty}: expected [1, length, heads, head_dim] float32")
    if int(operands[0].shape[3]) != int(operands[2].shape[3]):
        raise LoweringError(f"attention with values {operands[2]}: expected the head_dim of {operands[0]}")
