"""Grouped-query attention over any number of new and cached tokens, in one pass over blocks of 64 keys.

For each block a row takes the scores, raises the highest one so far, scales down what it has and adds the
block's values (the online softmax of FlashAttention, https://arxiv.org/abs/2205.14135). Blocks begin at
multiples of 64 positions, scores are chains over the channels, sums over keys of equal position modulo 16 and
results chains over the keys: an order that depends on a row's own position alone. A row therefore has the
same bits in a chunk of any length, in both kernels and with any number of threads.
"""

from __future__ import annotations

from functools import cache

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812

from targets.cpu.attention_layout import Layout, Operands
from targets.cpu.attention_output import FloatOutput, Output, Quantization, QuantizedOutput
from targets.cpu.attention_rows import MOST_ROWS, emit_rows
from targets.cpu.attention_tiles import emit_tiles
from targets.cpu.errors import LoweringError
from targets.cpu.kernel import KERNEL_ATTRS


@cache
def attention(
    heads: int,
    kv_heads: int,
    head_dim: int,
    scale: float,
    causal: bool,
    window: int = 0,
    quantization: Quantization | None = None,
) -> tirx.PrimFunc:
    """PrimFunc ``(q [1, s, heads, d], k [1, t, kv_heads, d], v like k, out like q)``, all float32.

    out = softmax(scale * q k^T) v; with ``causal``, query i sees the first t - s + i + 1 keys (t >= s), and
    with a ``window`` above 0 only the last ``window`` of those; blocks of keys before it cost nothing.
    With a ``quantization`` PrimFunc ``(q, k, v, step, integers, residual)`` of the buffers of
    ``QuantizedOutput``: out, which is not written, quantized; the last one only if it asks for it.
    Raises LoweringError when ``heads`` is not a multiple of ``kv_heads``.
    """
    if heads % kv_heads:
        raise LoweringError(
            f"attention with {heads} query heads: expected a multiple of its {kv_heads} key heads"
        )
    layout = Layout(heads, kv_heads, head_dim, scale, causal, window)
    s, t = tirx.Var("s", "int64"), tirx.Var("t", "int64")
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRS)
        q = T.arg("q", T.buffer((1, s, heads, head_dim), "float32"))
        k = T.arg("k", T.buffer((1, t, kv_heads, head_dim), "float32"))
        v = T.arg("v", T.buffer((1, t, kv_heads, head_dim), "float32"))
        out = _output(layout, s, quantization)
        with T.sblock("root"):
            # What is not declared here TVM would find out, which takes a second.
            T.reads(*(buffer[_all_of(buffer)] for buffer in (q, k, v)))
            T.writes(*(buffer[_all_of(buffer)] for buffer in out.results))
            _emit(Operands(q, k, v, out, s, t, layout))
    return builder.get()


def _all_of(buffer: tirx.Var) -> tuple[slice, ...]:
    return (slice(None),) * len(buffer.ty.shape)


def _output(layout: Layout, s: tirx.Expr, quantization: Quantization | None) -> Output:
    """The arguments behind the keys and values."""
    if quantization is None:
        return FloatOutput(T.arg("out", T.buffer((1, s, layout.heads, layout.head_dim), "float32")))
    columns = layout.heads * layout.head_dim
    step = T.arg("step", T.buffer((columns,) if quantization.per_channel else (), "float32"))
    integers = T.arg("integers", T.buffer((s, columns), "int8"))
    residual = T.arg("residual", T.buffer((s, columns), "float32")) if quantization.residual else None
    return QuantizedOutput(integers, residual, step, layout.head_dim)


def _emit(op: Operands) -> None:
    """The kernel for the number of rows at hand."""
    with T.If(op.rows <= MOST_ROWS):
        with T.Then():
            emit_rows(op)
        with T.Else(), T.If(op.rows <= 16):
            with T.Then():
                emit_tiles(op, 16, op.layout.neighbours, 16)
            with T.Else():
                emit_tiles(op, 32, 1, 256)
