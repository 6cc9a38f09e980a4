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
from tvm.script import tirx as T  # noqa: N812

from targets.cpu.attention_layout import Layout, Operands
from targets.cpu.attention_rows import MOST_ROWS, emit_rows
from targets.cpu.attention_tiles import emit_tiles
from targets.cpu.errors import LoweringError
from targets.cpu.kernel import KERNEL_ATTRS


@cache
def attention(
    heads: int, kv_heads: int, head_dim: int, scale: float, causal: bool, window: int = 0
) -> tirx.PrimFunc:
    """PrimFunc ``(q [1, s, heads, d], k [1, t, kv_heads, d], v like k, out like q)``, all float32.

    out = softmax(scale * q k^T) v; with ``causal``, query i sees the first t - s + i + 1 keys (t >= s), and
    with a ``window`` above 0 only the last ``window`` of those; blocks of keys before it cost nothing.
    Raises LoweringError when ``heads`` is not a multiple of ``kv_heads``.
    """
    if heads % kv_heads:
        raise LoweringError(
            f"attention with {heads} query heads: expected a multiple of its {kv_heads} key heads"
        )
    layout = Layout(heads, kv_heads, head_dim, scale, causal, window)
    D = head_dim

    @T.prim_func(private=True, s_tir=True)
    def attention(q_handle: T.handle, k_handle: T.handle, v_handle: T.handle, out_handle: T.handle) -> None:
        T.func_attr(KERNEL_ATTRS)
        s, t = T.int64(), T.int64()
        q = T.match_buffer(q_handle, (1, s, heads, D), "float32")
        k = T.match_buffer(k_handle, (1, t, kv_heads, D), "float32")
        v = T.match_buffer(v_handle, (1, t, kv_heads, D), "float32")
        out = T.match_buffer(out_handle, (1, s, heads, D), "float32")
        with T.sblock("root"):
            T.reads(q[:, :, :, :], k[:, :, :, :], v[:, :, :, :])
            T.writes(out[:, :, :, :])
            op = T.meta_var(Operands(q, k, v, out, s, t, layout))
            if s * layout.group <= MOST_ROWS:
                emit_rows(op)
            elif s * layout.group <= 16:
                emit_tiles(op, 16, layout.neighbours, 16)
            else:
                emit_tiles(op, 32, 1, 256)

    return attention
