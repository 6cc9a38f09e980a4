"""Which channels are hot: their float rows stay in memory, all others use the int8 rows of the weight file.

Rows of all linears compete: those that serve most outliers for their bytes are taken first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import relax

from mllm_tvm.frontend.model import Model
from relax_passes.graph import bindings, op_name, operands, split_params, static_shape

# The share of the outliers seen in calibration that hot rows are to serve: other text has a little less.
SERVED = 0.83


ITEM_BYTES = 2
"""Of an element of a float row or of the token embedding, whatever the model's file stores: the same weights
have to give the same recipe, from every kind of file."""


def model_bytes(model: Model, linears: Iterable[str]) -> int:
    """Bytes of the parameters of ``model`` with these weights in int8."""
    int8, main = set(linears), model.module["main"]
    tables = _token_embeddings(main)
    size = 0
    for parameter in split_params(main)[1]:
        itemsize = 1 if parameter.name in int8 else ITEM_BYTES if parameter in tables else 4
        size += itemsize * math.prod(static_shape(parameter))
    return size


def _token_embeddings(main: relax.Function) -> set[relax.Var]:
    """The parameters whose rows token ids (the first input) choose."""
    token_ids = main.params[0]
    reads = [operands(binding.value) for binding in bindings(main) if op_name(binding.value) == "relax.take"]
    return {table for table, indices in reads if indices.same_as(token_ids)}


@dataclass(frozen=True)
class Outliers:
    """The outliers of one linear input: ``counts`` [K] by channel, per token or in all.

    ``readers`` linears read it, and the float rows of one channel for all of them take ``row_bytes``.
    """

    counts: np.ndarray
    readers: int
    row_bytes: int


def choose_hot(groups: Sequence[Outliers], most_bytes: float) -> list[list[int]]:
    """The hot channels of each group, best first: enough to serve ``SERVED``, of at most ``most_bytes``."""
    group, channel, bytes_ = _ranked(groups)
    keep = np.cumsum(bytes_) <= most_bytes
    return [channel[keep & (group == g)].tolist() for g in range(len(groups))]


def bytes_needed(groups: Sequence[Outliers]) -> float:
    """Bytes of the float rows that serve ``SERVED`` of the outliers."""
    return float(_ranked(groups)[2].sum())


def _ranked(groups: Sequence[Outliers]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group, channel and bytes of the rows that serve ``SERVED``, best first."""
    counts = np.concatenate([np.asarray(g.counts, np.float64) * g.readers for g in groups])
    bytes_ = np.concatenate([np.full(len(g.counts), g.row_bytes) for g in groups])
    order = np.argsort(-counts / bytes_, kind="stable")
    served = np.cumsum(counts[order])
    # As many as are needed to reach the share; none where there are no outliers.
    total = served[-1] if served.size else 0
    order = order[: int(np.searchsorted(served, SERVED * total)) + 1] if total > 0 else order[:0]
    group = np.repeat(np.arange(len(groups)), [len(g.counts) for g in groups])
    channel = np.concatenate([np.arange(len(g.counts)) for g in groups])
    return group[order], channel[order], bytes_[order]
