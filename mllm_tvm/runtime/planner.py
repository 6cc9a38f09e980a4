"""Cuts a prompt into chunks of compiled lengths.

Long chunks cost the NPU least, but a chunk's functions on the two processors wait for each other: where the
other chunks cannot fill the gaps, a long chunk costs more than it saves. So :func:`plan_prefill` compares the
cheapest covers for each length of the longest chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, inf

from .tasks import ScheduleError


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """``tokens`` tokens from ``start`` on, run by functions compiled for ``length`` >= ``tokens`` rows."""

    start: int
    tokens: int
    length: int


@dataclass(frozen=True)
class ChunkCosts:
    """Expected seconds of one full chunk of each compiled length, on each processor."""

    npu: Mapping[int, float]
    cpu: Mapping[int, float]

    def prefill_s(self, plan: Sequence[ChunkPlan]) -> float:
        """Expected seconds of a plan: what none can beat, and several chunks nearly reach.

        Each processor has its work to do, and a chunk's functions wait for each other, so that what the two
        do for it adds up. The NPU computes whole chunks, the CPU valid rows only.
        """
        on_npu = [self.npu[chunk.length] for chunk in plan]
        on_cpu = [self.cpu[chunk.length] * chunk.tokens / chunk.length for chunk in plan]
        return max(sum(on_npu), sum(on_cpu), *map(sum, zip(on_npu, on_cpu, strict=True)))


def plan_prefill(tokens: int, costs: ChunkCosts) -> tuple[ChunkPlan, ...]:
    """The candidate with the least expected time; of equal ones the one with the longest chunks.

    Raises ScheduleError as :func:`plan_chunks` does.
    """
    lengths = _checked_lengths(tokens, costs.npu)
    if tokens <= lengths[0] and costs.npu[lengths[0]] == min(costs.npu.values()):
        return _place(tokens, lengths[:1])
    plans, covers = [], _Covers(tokens, lengths)
    for length in lengths:
        covers.allow(length, costs.npu[length])
        if length < tokens:
            plans.append(_place(tokens, [length, *covers.cheapest(tokens - length)]))
        plans.append(_place(tokens, covers.cheapest(tokens)))
    return min(reversed(plans), key=costs.prefill_s)


def plan_chunks(
    tokens: int, chunk_lengths: Sequence[int], cost: Mapping[int, float] | None = None
) -> tuple[ChunkPlan, ...]:
    """The cheapest chunks that cover ``tokens``, longest first; only the last one is padded.

    ``cost`` maps each chunk length to what running it costs (default: its length). Equal costs prefer less
    padding, then fewer chunks, then longer ones. Raises ScheduleError for a negative token count, no chunk
    lengths, or a length without a cost.
    """
    lengths = _checked_lengths(tokens, chunk_lengths)
    prices = {length: float(length) for length in lengths} if cost is None else cost
    covers = _Covers(tokens, lengths)
    for length in lengths:
        if length not in prices:
            raise ScheduleError(f"chunk length {length} has no cost: give one for each of {lengths}")
        covers.allow(length, prices[length])
    return _place(tokens, covers.cheapest(tokens))


def _checked_lengths(tokens: int, chunk_lengths: Iterable[int]) -> list[int]:
    """The lengths, shortest first."""
    if tokens < 0:
        raise ScheduleError(f"cannot plan chunks for {tokens} tokens: expected 0 or more")
    return descending_lengths(chunk_lengths)[::-1]


def descending_lengths(chunk_lengths: Iterable[int]) -> list[int]:
    """Each chunk length once, longest first; raises ScheduleError for none, or one that is not positive."""
    lengths = sorted(set(chunk_lengths), reverse=True)
    if not lengths or lengths[-1] < 1:
        raise ScheduleError(f"chunk lengths {lengths}: expected one or more positive lengths")
    return lengths


class _Covers:
    """The cheapest chunks for every number of tokens up to a limit, by dynamic programming over their sum.

    Sums are multiples of the lengths' common divisor: others are skipped.
    """

    def __init__(self, tokens: int, lengths: Sequence[int]) -> None:
        self._unit = gcd(*lengths)
        sums = (tokens + lengths[-1] - 1) // self._unit
        self._best = [(0.0, 0)] + [(inf, 0)] * sums
        """Cost and number of the chunks of each sum."""
        self._last = [0] * (sums + 1)
        """One of their lengths, in units."""

    def allow(self, length: int, cost: float) -> None:
        """Use chunks of one more length, which is longer than those before."""
        best, step = self._best, length // self._unit
        for total in range(step, len(best)):
            before, chunks = best[total - step]
            with_length = (before + cost, chunks + 1)
            if with_length <= best[total]:
                best[total], self._last[total] = with_length, step

    def cheapest(self, tokens: int) -> list[int]:
        """Chunk lengths, longest first, that cover so many tokens."""
        first = -(-tokens // self._unit)
        total = min(range(first, len(self._best)), key=lambda index: (self._best[index][0], index))
        chosen = []
        while total:
            chosen.append(self._last[total] * self._unit)
            total -= self._last[total]
        return sorted(chosen, reverse=True)


def _place(tokens: int, lengths: list[int]) -> tuple[ChunkPlan, ...]:
    chunks, start = [], 0
    for length in lengths if tokens else ():
        used = min(length, tokens - start)
        chunks.append(ChunkPlan(start, used, length))
        start += used
    return tuple(chunks)
