"""Rules of fused operators: those of ONNX Runtime (com.microsoft) and of opset 23."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from mllm_tvm.frontend.onnx import norms
from mllm_tvm.frontend.onnx.attention import Masks, Scores
from mllm_tvm.frontend.onnx.dims import TOTAL, Dim, text
from mllm_tvm.frontend.onnx.importer import POSITIONS, Importer
from mllm_tvm.frontend.onnx.node import Node, Rule
from mllm_tvm.frontend.onnx.rotary import read_rotary
from mllm_tvm.frontend.onnx.tensor import (
    Tensor,
    UnsupportedError,
    concat,
    cut,
    elementwise,
    reshape,
    transpose,
)

_TO_HEADS = (0, 2, 1, 3)
_SKIP_NORM_EPSILON = 1e-12


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """[1, seq, heads * head_dim] -> [1, seq, heads, head_dim]."""
    if len(x.dims) != 3 or not heads or x.dims[2].const % heads:
        raise UnsupportedError(
            f"splits {text(x.dims)} into {heads} heads: expected [1, seq, heads * head_dim]"
        )
    return reshape(x, (*x.dims[:2], Dim(const=heads), Dim(const=x.dims[2].const // heads)))


def _rotary_embedding(importer: Importer, node: Node) -> Tensor:
    """Both ``RotaryEmbedding``: they have their inputs in another order."""
    node.expect(scale=1.0, is_packed_batching=0)
    microsoft = node.proto.domain == "com.microsoft"
    slots = (2, 3, 1) if microsoft else (1, 2, 3)
    cos, sin, positions = (node.name(slot) for slot in slots)
    if cos is None or sin is None:
        raise UnsupportedError("expected tables of cosines and sines")
    if microsoft and positions is not None:
        positions = _checked_positions(importer, positions)
    rotary = read_rotary(importer, cos, sin, positions, bool(node.attrs.get("interleaved")))
    x = node.operand(0)
    if len(x.dims) == 4:
        return transpose(rotary.rotate(transpose(x, _TO_HEADS)), _TO_HEADS)
    channels = node.attrs.get("rotary_embedding_dim") or 2 * rotary.cos.dims[-1].const
    heads = node.attrs.get("num_heads") or x.dims[-1].const // channels
    return reshape(rotary.rotate(_split_heads(x, heads)), x.dims)


def _checked_positions(importer: Importer, name: str) -> str:
    """Position ids [1, seq], or the position of the first new token, [1]."""
    arrays = importer.probe(name)
    if arrays[0].size > 1:
        return name
    if any(array.item() != probe.past for array, probe in zip(arrays, importer.probes, strict=True)):
        raise UnsupportedError(f"reads {name} as the first position: expected the number of cached tokens")
    return POSITIONS


def _append(past: Tensor | None, rows: Tensor) -> Tensor:
    """``rows [1, seq, heads, head_dim]`` after the earlier ones: [1, heads, tokens, head_dim]."""
    rows = transpose(rows, _TO_HEADS)
    return rows if past is None else concat([past, rows], 2)


def _group_query_attention(importer: Importer, node: Node) -> Sequence[Tensor]:
    node.expect(softcap=0.0, qk_output=0, k_quant_type="NONE", v_quant_type="NONE", kv_cache_bit_width=0)
    if node.attrs.get("smooth_softmax", 0) not in (0, -1):
        raise UnsupportedError("smooth_softmax is not supported")
    node.refuse_inputs(10)
    _check_lengths(importer, node)
    heads, kv_heads = int(node.attrs["num_heads"]), int(node.attrs["kv_num_heads"])
    query, key, value = _unpacked(node, heads, kv_heads)
    size = query.dims[3].const
    if node.attrs.get("do_rotary"):
        cos, sin = node.name(7), node.name(8)
        if cos is None or sin is None:
            raise UnsupportedError("do_rotary is 1: expected tables of cosines and sines (inputs 7 and 8)")
        positions = node.name(9) or POSITIONS
        rotary = read_rotary(importer, cos, sin, positions, bool(node.attrs.get("rotary_interleaved")))
        query, key = rotary.rotate(query), rotary.rotate(key)
    past = [node.operand(slot) if node.has(slot) else None for slot in (3, 4)]
    keys, values = _append(past[0], key), _append(past[1], value)
    scores = Scores(query, keys, heads, size, node.number("scale", 0.0) or size**-0.5, Masks())
    dims = (*query.dims[:2], Dim(const=heads * size))
    window = node.attrs.get("local_window_size", -1)
    limit = window if 0 < window < importer.max_positions else None
    return importer.attend(node.proto, scores, keys, values, dims, limit), keys, values


def _unpacked(node: Node, heads: int, kv_heads: int) -> list[Tensor]:
    """Queries, keys and values, [1, seq, heads, head_dim] each, of separate inputs or of one packed one."""
    x = node.operand(0)
    if node.has(1):
        parts = [x, node.operand(1), node.operand(2)]
    else:
        size = x.dims[-1].const // (heads + 2 * kv_heads)
        ends = np.cumsum([0, heads * size, kv_heads * size, kv_heads * size])
        parts = [cut(x, len(x.dims) - 1, int(a), int(b)) for a, b in itertools.pairwise(ends)]
    return [_split_heads(part, n) for part, n in zip(parts, (heads, kv_heads, kv_heads), strict=True)]


def _check_lengths(importer: Importer, node: Node) -> None:
    """``seqlens_k`` and ``total_sequence_length`` have to be those of unpadded tokens."""
    for slot, missing in ((5, 1), (6, 0)):
        for array, probe in zip(node.probe(slot), importer.probes, strict=True):
            if array is None or array.size != 1 or array.item() != probe.past + probe.seq - missing:
                raise UnsupportedError(
                    f"input {slot}: expected {'last index' if missing else 'number'} of all tokens"
                )


def _attention(importer: Importer, node: Node) -> Sequence[Tensor]:
    """``Attention`` of opset 23."""
    node.expect(softcap=0.0, qk_matmul_output_mode=0)
    if node.proto.domain == "com.microsoft" or any(node.proto.output[3:]):
        raise UnsupportedError("expected Attention of opset 23 without scores as an output")
    node.refuse_inputs(6)
    heads = [node.attrs.get("q_num_heads", 0), *[node.attrs.get("kv_num_heads", 0)] * 2]
    flat = len(node.operand(0).dims) == 3
    query, key, value = (
        _split_heads(node.operand(i), heads[i]) if flat else transpose(node.operand(i), _TO_HEADS)
        for i in range(3)
    )
    past = [node.operand(slot) if node.has(slot) else None for slot in (4, 5)]
    keys, values = (
        _append(old, new) if old is not None or flat else node.operand(i)
        for i, (old, new) in enumerate(zip(past, (key, value), strict=True), 1)
    )
    causal = bool(node.attrs.get("is_causal"))
    if causal and keys.dims[2] == TOTAL and past[0] is None:
        raise UnsupportedError(
            "is_causal with keys longer than queries: expected past_key and past_value inputs"
        )
    masks = Masks(added=[node.operand(3)] if node.has(3) else [])
    count, size = query.dims[2].const, query.dims[3].const
    scores = Scores(query, keys, count, size, node.number("scale", 0.0) or size**-0.5, masks)
    dims = (*query.dims[:2], Dim(const=count * size)) if flat else node.operand(0).dims
    window = importer.window(masks, causal)
    return importer.attend(node.proto, scores, keys, values, dims, window), keys, values


def _multi_head_attention(importer: Importer, node: Node) -> Sequence[Tensor]:
    node.expect(qk_output=0)
    if node.has(3) or node.has(4) or node.has(8):
        raise UnsupportedError("bias, key_padding_mask and past_sequence_length are not supported")
    count = int(node.attrs["num_heads"])
    query, key, value = (_split_heads(node.operand(i), count) for i in range(3))
    past = [node.operand(slot) if node.has(slot) else None for slot in (6, 7)]
    keys, values = _append(past[0], key), _append(past[1], value)
    masks = Masks(added=[node.operand(5)] if node.has(5) else [])
    size = query.dims[3].const
    scores = Scores(query, keys, count, size, node.number("scale", 0.0) or size**-0.5, masks)
    window = importer.window(masks, bool(node.attrs.get("unidirectional")))
    dims = (*query.dims[:2], Dim(const=count * size))
    return importer.attend(node.proto, scores, keys, values, dims, window), keys, values


def _rms_norm(_: Importer, node: Node) -> Tensor:
    x = node.operand(0)
    if node.attrs.get("axis", -1) not in (-1, len(x.dims) - 1):
        raise UnsupportedError("expected the last axis")
    return Tensor("rms_norm", (x, node.operand(1)), x.dims, {"epsilon": node.number("epsilon", 1e-5)})


def _skip_rms_norm(_: Importer, node: Node) -> Sequence[Tensor | None]:
    total = norms.add(node.operand(0), node.operand(1))
    if node.has(3):
        total = norms.add(total, node.operand(3))
    attrs = {"epsilon": node.number("epsilon", _SKIP_NORM_EPSILON)}
    return Tensor("rms_norm", (total, node.operand(2)), total.dims, attrs), None, None, total


def _skip_layer_norm(_: Importer, node: Node) -> Sequence[Tensor | None]:
    total = norms.add(node.operand(0), node.operand(1))
    if node.has(4):
        total = norms.add(total, node.operand(4))
    scale = [node.operand(slot) for slot in (2, 3) if node.has(slot)]
    attrs = {"epsilon": node.number("epsilon", _SKIP_NORM_EPSILON)}
    return Tensor("layer_norm", (total, *scale), total.dims, attrs), None, None, total


def _biased(op: str) -> Rule:
    def rule(_: Importer, node: Node) -> Tensor:
        x = node.operand(0)
        return elementwise(op, norms.add(x, node.operand(1)) if node.has(1) else x)

    return rule


FUSED_RULES: dict[str, Rule] = {
    "Attention": _attention,
    "BiasGelu": _biased("gelu"),
    "FastGelu": _biased("gelu_tanh"),
    "GroupQueryAttention": _group_query_attention,
    "MultiHeadAttention": _multi_head_attention,
    "RMSNormalization": _rms_norm,
    "RotaryEmbedding": _rotary_embedding,
    "SimplifiedLayerNormalization": _rms_norm,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
}
"""Operator -> its rule."""
