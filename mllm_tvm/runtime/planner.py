"""Cuts a prompt into chunks of compiled lengths.

Long chunks cost the NPU least, but a chunk's functions on the two processors wait for each other: where the
other chunks cannot fill the gaps, a long chunk costs more than it saves. So :func:`plan_prefill` compares the
cheapest covers for each length of the longest chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd

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
    lengths = sorted(costs.npu)
    # A longer one would be padded by more than the shortest.
    lengths = [length for length in lengths if length < max(tokens, 1) + lengths[0]]
    if len(lengths) == 1 and 0 < tokens <= lengths[0]:
        return _place(tokens, lengths)
    shorter = [lengths[:bound] for bound in range(len(lengths), 0, -1)]
    plans = [plan_chunks(tokens, bounded, costs.npu) for bounded in shorter]
    plans += [_behind(b[-1], plan_chunks(tokens - b[-1], b, costs.npu)) for b in shorter if b[-1] < tokens]
    return min(plans or [plan_chunks(tokens, lengths)], key=costs.prefill_s) if tokens else ()


def _behind(length: int, rest: Sequence[ChunkPlan]) -> tuple[ChunkPlan, ...]:
    """A full chunk of ``length`` tokens, and ``rest`` after it."""
    moved = (replace(chunk, start=chunk.start + length) for chunk in rest)
    return (ChunkPlan(0, length, length), *moved)


def plan_chunks(
    tokens: int, chunk_lengths: Sequence[int], cost: Mapping[int, float] | None = None
) -> tuple[ChunkPlan, ...]:
    """The cheapest chunks that cover ``tokens``, longest first; only the last one is padded.

    ``cost`` maps each chunk length to what running it costs (default: its length). The padding stays below
    the smallest compiled length. Equal costs prefer less padding, then fewer chunks, then longer ones.
    Raises ScheduleError for a negative token count, no chunk lengths, or a length without a cost.
    """
    if tokens < 0:
        raise ScheduleError(f"cannot plan chunks for {tokens} tokens: expected 0 or more")
    lengths = descending_lengths(chunk_lengths)
    prices = {length: float(length) for length in lengths} if cost is None else cost
    missing = [length for length in lengths if length not in prices]
    if missing:
        raise ScheduleError(f"chunk length {missing[0]} has no cost: give one for each of {lengths}")
    return _place(tokens, _cheapest_cover(tokens, lengths, prices))


def descending_lengths(chunk_lengths: Iterable[int]) -> list[int]:
    """Each chunk length once, longest first; raises ScheduleError for none, or one that is not positive."""
    lengths = sorted(set(chunk_lengths), reverse=True)
    if not lengths or lengths[-1] < 1:
        raise ScheduleError(f"chunk lengths {lengths}: expected one or more positive lengths")
    return lengths


def _cheapest_cover(tokens: int, lengths: list[int], cost: Mapping[int, float]) -> list[int]:
    """Chunk lengths, longest first, by dynamic programming over the exact sum of the lengths.

    Sums are multiples of the lengths' common divisor: others are skipped.
    """
    limit = tokens + lengths[-1] - 1
    best: list[tuple[float, int, int] | None] = [(0.0, 0, 0)] + [None] * limit
    divisor = gcd(*lengths)
    for total in range(divisor, limit + 1, divisor):
        options = []
        for length in lengths:
            rest = best[total - length] if length <= total else None
            if rest is not None:
                options.append((rest[0] + cost[length], rest[1] + 1, -length))
        best[total] = min(options, default=None)
    if tokens == 0:
        return []
    covers = [(entry[0], total) for total in range(tokens, limit + 1) if (entry := best[total]) is not None]
    total, chosen = min(covers)[1], []
    while total:
        entry = best[total]
        assert entry is not None
        chosen.append(-entry[2])
        total += entry[2]
    return sorted(chosen, reverse=True)


def _place(tokens: int, lengths: list[int]) -> tuple[ChunkPlan, ...]:
    chunks, start = [], 0
    for length in lengths:
        used = min(length, tokens - start)
        chunks.append(ChunkPlan(start, used, length))
        start += used
    return tuple(chunks)
