"""Cuts a prompt into chunks of compiled lengths.

Long chunks cost the NPU least, but a chunk's functions on the two processors wait for each other: where the
other chunks cannot fill the gaps, a long chunk costs more than it saves. So :func:`plan_prefill` compares the
cheapest covers for each length of the longest chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, inf
from typing import NamedTuple

from .tasks import ScheduleError


class ChunkPlan(NamedTuple):
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
    if 0 < tokens <= lengths[0] and costs.npu[lengths[0]] == min(costs.npu.values()):
        return _place(tokens, lengths[:1])
    found, covers = [], _Covers(tokens, lengths)
    for length in lengths:
        covers.allow(length, costs.npu[length])
        if length < tokens:
            found.append((length, *covers.cheapest(tokens - length)))
        found.append(tuple(covers.cheapest(tokens)))
    plans = [_place(tokens, chosen) for chosen in dict.fromkeys(reversed(found))]
    return min(plans, key=costs.prefill_s)


def plan_chunks(
    tokens: int, chunk_lengths: Sequence[int], cost: Mapping[int, float] | None = None
) -> tuple[ChunkPlan, ...]:
    """The cheapest chunks that cover ``tokens``, longest first; only the last one is padded.

    ``cost`` maps each chunk length to what running it costs (default: its length). Equal costs prefer longer
    chunks. Raises ScheduleError for a negative token count, no chunk lengths, or a length without a cost.
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
    return ascending_lengths(chunk_lengths)


def ascending_lengths(chunk_lengths: Iterable[int]) -> list[int]:
    """Each chunk length once, shortest first; raises ScheduleError for none, or one that is not positive."""
    lengths = sorted(set(chunk_lengths))
    if not lengths or lengths[0] < 1:
        raise ScheduleError(f"chunk lengths {lengths}: expected one or more positive lengths")
    return lengths


class _Covers:
    """The cheapest chunks for every number of tokens up to a limit, by dynamic programming.

    Tokens are counted in units of the lengths' common divisor.
    """

    def __init__(self, tokens: int, lengths: Sequence[int]) -> None:
        self._unit = gcd(*lengths)
        units = -(-tokens // self._unit)
        self._cost = [0.0] + [inf] * units
        self._first = [0] * (units + 1)
        """The length of one of the chunks."""

    def allow(self, length: int, cost: float) -> None:
        """Use chunks of one more length, which is longer than those before."""
        costs, step = self._cost, length // self._unit
        for units in range(1, len(costs)):
            with_length = cost + (costs[units - step] if units > step else 0.0)
            if with_length <= costs[units]:
                costs[units], self._first[units] = with_length, length

    def cheapest(self, tokens: int) -> list[int]:
        """Chunk lengths, longest first, that cover so many tokens."""
        chosen = []
        while tokens > 0:
            chosen.append(self._first[-(-tokens // self._unit)])
            tokens -= chosen[-1]
        return sorted(chosen, reverse=True)


def _place(tokens: int, lengths: Sequence[int]) -> tuple[ChunkPlan, ...]:
    chunks, start = [], 0
    for length in lengths:
        used = min(length, tokens - start)
        chunks.append(ChunkPlan(start, used, length))
        start += used
    return tuple(chunks)
