"""Raises ``softmax(scale * q k^T + mask) v`` to one attention, whatever views and guards are in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mllm_tvm.frontend.onnx.dims import ONE, SEQ, Binding, Dim, row_dims, text
from mllm_tvm.frontend.onnx.tensor import Tensor, UnsupportedError, scalar, source

# What is added to a score that must not count; any model's scores are smaller.
_MASKED = -1e4

Evaluate = Callable[[Tensor, Binding], np.ndarray]


@dataclass
class Masks:
    """What is done to the scores before the softmax.

    ``added`` values are added to them; where a ``kept`` value is False, or a ``dropped`` one True, they do
    not count.
    """

    added: list[Tensor] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    dropped: list[Tensor] = field(default_factory=list)

    def allowed(self, evaluate: Evaluate, binding: Binding) -> np.ndarray:
        """[seq, past + seq] bool: which tokens each new token attends to.

        Raises:
            UnsupportedError: the scores get a bias, or heads differ.
        """
        seq, total = binding.seq, binding.seq + binding.past
        allowed = np.ones((1, 1, seq, total), bool)
        for mask in self.added:
            array = evaluate(mask, binding)
            if array.dtype != bool and np.any((array != 0) & ~(array <= _MASKED)):
                raise UnsupportedError(
                    "adds a bias to the attention scores: expected a mask of 0 and large negative"
                )
            allowed = allowed & (array if array.dtype == bool else array == 0)
        for mask in self.kept:
            allowed = allowed & evaluate(mask, binding).astype(bool)
        for mask in self.dropped:
            allowed = allowed & ~evaluate(mask, binding).astype(bool)
        if allowed.ndim != 4 or (allowed != allowed[:1, :1]).any() or allowed.shape[2:] != (seq, total):
            raise UnsupportedError(
                f"masks attention of shape {list(allowed.shape)}: expected one mask for all heads"
            )
        return np.asarray(allowed[0, 0])


@dataclass(frozen=True)
class Scores:
    """``scale * q k^T`` under ``masks``; queries are laid out as [tokens, heads, head_dim]."""

    query: Tensor
    key: Tensor
    heads: int
    head_dim: int
    scale: float
    masks: Masks


def match_probabilities(x: Tensor) -> Tensor | None:
    """The softmax behind ``x``, guards against rows without any token removed; None when there is none."""
    x = source(x)
    while x.op == "where" and _is_nan_guard(x):
        x = source(x.inputs[2])
    return x if x.op == "softmax" else None


def _is_nan_guard(x: Tensor) -> bool:
    guard, replacement, guarded = x.inputs
    return guard.op == "is_nan" and source(guard.inputs[0]) is source(guarded) and scalar(replacement) == 0


def match_scores(x: Tensor) -> Scores:
    """The product behind the input of a softmax.

    Raises:
        UnsupportedError: something else than scaling and masking happens to it.
    """
    scale, masks = 1.0, Masks()
    while (x := source(x)).op != "scores":
        x, factor = _peel_score(x, masks)
        scale *= factor
    heads, head_dim = _head_shape(*x.inputs)
    query, first = _unscaled(x.inputs[0])
    key, second = _unscaled(x.inputs[1])
    return Scores(query, key, heads, head_dim, scale * first * second, masks)


def _peel_score(x: Tensor, masks: Masks) -> tuple[Tensor, float]:
    if x.op in ("multiply", "divide"):
        inner, factor = _unscaled(x)
        if inner is not x:
            return inner, factor
    if x.op == "add":
        for inner, mask in (x.inputs, x.inputs[::-1]):
            if mask.op in ("mask", "table", "const"):
                masks.added.append(mask)
                return inner, 1.0
    if x.op == "where" and x.inputs[0].op in ("mask", "table", "const"):
        condition, kept, dropped = x.inputs
        if (scalar(dropped) or 0) <= _MASKED:
            masks.kept.append(condition)
            return kept, 1.0
        if (scalar(kept) or 0) <= _MASKED:
            masks.dropped.append(condition)
            return dropped, 1.0
    raise UnsupportedError(
        f"applies {x.op} to attention scores: expected a product of queries and keys, scaled and masked"
    )


def _unscaled(x: Tensor) -> tuple[Tensor, float]:
    """``x`` without multiplications by constants, and their product."""
    scale = 1.0
    while True:
        x = source(x)
        if x.op == "divide" and scalar(x.inputs[1]) is not None:
            scale, x = scale / (scalar(x.inputs[1]) or math.nan), x.inputs[0]
        elif x.op == "multiply" and scalar(x.inputs[1]) is not None:
            scale, x = scale * (scalar(x.inputs[1]) or 0), x.inputs[0]
        elif x.op == "multiply" and scalar(x.inputs[0]) is not None:
            scale, x = scale * (scalar(x.inputs[0]) or 0), x.inputs[1]
        elif (repeated := _repeated_heads(x)) is not None and _is_scaled(repeated):
            # Scaled keys whose heads are then repeated: the heads stay grouped.
            x = repeated
        else:
            return x, scale


def _is_scaled(x: Tensor) -> bool:
    x = source(x)
    return x.op in ("multiply", "divide") and any(scalar(operand) is not None for operand in x.inputs)


def grouped(x: Tensor, heads: int, head_dim: int) -> tuple[Tensor, int]:
    """Keys or values before their heads were repeated for grouped queries, and how many heads they have.

    Raises:
        UnsupportedError: ``x`` does not have ``heads`` heads, or a number that divides it, of ``head_dim``.
    """
    x = source(x)
    x = _repeated_heads(x) or x
    tokens, *rest = row_dims(x.dims)
    elements = math.prod(dim.const for dim in rest)
    if tokens.is_static or elements % head_dim or heads % (elements // head_dim):
        raise UnsupportedError(
            f"attends to keys or values {text(x.dims)}: expected {heads} heads of {head_dim}, or a divisor "
            "of that number"
        )
    return source(x), elements // head_dim


def _repeated_heads(x: Tensor) -> Tensor | None:
    """``y [tokens, kv_heads, d]`` of ``x = reshape(expand(y), [tokens, kv_heads * group, d])``."""
    inner = source(x.inputs[0]) if x.op == "reshape" else x
    if inner.op != "expand":
        return None
    base = inner.inputs[0]
    before, wide, after = row_dims(base.dims), row_dims(inner.dims), row_dims(x.dims)
    if len(wide) != len(before) + 1 or wide[0] != before[0] or wide[-1] != before[-1]:
        return None
    # The new axis comes right after that of the heads (which is left out if there is one head).
    if wide[:-2] != before[:-1]:
        return None
    heads = math.prod(dim.const for dim in wide[1:-1])
    return source(base) if after == (wide[0], Dim(const=heads), wide[-1]) else None


def _head_shape(query: Tensor, key: Tensor) -> tuple[int, int]:
    """Heads and head size of ``query [.., heads, seq, size]`` and ``key [.., heads, size, tokens]``."""
    heads, tokens, size = (ONE, ONE, ONE, *query.dims)[-3:]
    transposed = key.dims[-2] == size and not key.dims[-1].is_static
    if tokens != SEQ or not (heads.is_static and size.is_static and transposed):
        raise UnsupportedError(
            f"multiplies activations {text(query.dims)} and {text(key.dims)}: expected queries "
            "[1, heads, seq, head_dim] and transposed keys [1, heads, head_dim, tokens]"
        )
    return heads.const, size.const


def check_causal(
    masks: Masks, evaluate: Evaluate, bindings: Sequence[Binding], causal: bool = False
) -> int | None:
    """Checks, by computing them, that the masks let each token see itself and earlier ones only.

    Args:
        masks: what is done to the scores.
        evaluate: computes a mask.
        bindings: the lengths to compute them at.
        causal: whether the operator masks later tokens by itself, too.

    Returns:
        How many tokens, itself included, a token sees; None for all earlier ones.

    Raises:
        UnsupportedError: they do something else; an encoder's let tokens see later ones.
    """
    window: int | None = None
    for binding in bindings:
        lower = np.tri(binding.seq, binding.seq + binding.past, binding.past, dtype=bool)
        allowed = masks.allowed(evaluate, binding) & (lower if causal else True)
        if (allowed & ~lower).any():
            raise UnsupportedError(
                "lets tokens attend to later ones: expected causal attention; encoders are not supported"
            )
        if (allowed != lower).any():
            window = int(allowed[-1].sum())
            recent = ~np.tri(binding.seq, binding.seq + binding.past, binding.past - window, dtype=bool)
            if (allowed != (lower & recent)).any():
                raise UnsupportedError("masks earlier tokens other than by a sliding window")
    return window
