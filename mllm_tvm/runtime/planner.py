"""Cuts a prompt into chunks of compiled lengths.

Long chunks cost the NPU least, but one chunk alone does not overlap: its functions on the two processors wait
for each other. So :func:`plan_prefill` compares the cheapest covers for each length of the longest chunk.
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


_EXPOSED = (1.0, 0.3, 0.02)
"""Share of the less busy processor's work that one, two and more chunks do not hide.

One hides nothing; two that take turns up to all but 0.3, the more even the work the less; three nearly all.
"""


@dataclass(frozen=True)
class ChunkCosts:
    """Expected seconds of one full chunk of each compiled length, on each processor."""

    npu: Mapping[int, float]
    cpu: Mapping[int, float]

    def prefill_s(self, plan: Sequence[ChunkPlan]) -> float:
        """Expected seconds of a plan: the busier processor's work, and what is exposed of the other's.

        The NPU computes whole chunks, the CPU valid rows only.
        """
        on_npu = sum(self.npu[chunk.length] for chunk in plan)
        on_cpu = sum(self.cpu[chunk.length] * chunk.tokens / chunk.length for chunk in plan)
        exposed = _EXPOSED[min(len(plan), len(_EXPOSED)) - 1]
        return max(on_npu, on_cpu) + exposed * min(on_npu, on_cpu)


def plan_prefill(tokens: int, costs: ChunkCosts) -> tuple[ChunkPlan, ...]:
    """The candidate with the least expected time; of equal ones the one with the longest chunks.

    Raises ScheduleError as :func:`plan_chunks` does.
    """
    lengths = sorted(costs.npu)
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
