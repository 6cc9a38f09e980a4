"""Search of chunk lengths and placement for a device, a model and a distribution of prompt lengths.

The planner's estimate ranks every set of a few lengths; the best ones are simulated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from math import isfinite

from mllm_tvm.runtime.planner import ChunkCosts, plan_prefill

from .configuration import OURS, Configuration, Placement
from .cost import CostModel
from .errors import SimulationError
from .expand import chunk_costs
from .memory import npu_bytes
from .models import ModelShape
from .prefill import PrefillRun, simulate_prefill
from .profile import DeviceProfile

CHUNK_LENGTHS = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024)
MAX_LENGTHS = 3
"""Compiled chunk lengths in a plan: each is one more copy of every NPU function."""
PLACEMENTS = (Placement(activation="cpu"), Placement(activation="npu"))
"""What the compiler can do: gated MLPs in one NPU function, or their activations on the CPU."""
_SIMULATED = 12
"""Sets of lengths that are simulated for each placement and pruned share."""


@dataclass(frozen=True)
class SearchSpace:
    """What is tried. ``pruned_shares`` is the user's choice of accuracy: with several the fastest wins."""

    chunk_lengths: tuple[int, ...] = CHUNK_LENGTHS
    whole_sets: tuple[tuple[int, ...], ...] = (OURS.chunk_lengths,)
    """Sets of any size that are tried besides."""
    placements: tuple[Placement, ...] = PLACEMENTS
    pruned_shares: tuple[float, ...] = (OURS.pruned_share,)
    policy: str = OURS.policy


@dataclass(frozen=True)
class SearchResult:
    """The best configuration, its mean prefill seconds, what was tried, and its prefill of each prompt."""

    configuration: Configuration
    seconds: float
    tried: int
    runs: tuple[PrefillRun, ...]


def search(
    model: ModelShape, profile: DeviceProfile, prompts: Mapping[int, float], space: SearchSpace
) -> SearchResult:
    """The configuration with the least mean prefill time; ``prompts`` maps tokens to their weight.

    Of equal ones the one that prunes least, then the one with fewer lengths. Raises SimulationError for no
    prompts, weights that are not positive, and what ``simulate_prefill`` does.
    """
    if not prompts or not all(isfinite(weight) and weight > 0 for weight in prompts.values()):
        raise SimulationError(f"prompt lengths {dict(prompts)}: expected at least one, weights above 0")
    tried: dict[Configuration, tuple[PrefillRun, ...]] = {}
    for start in _starts(space):
        for lengths in _promising(model, profile, start, prompts, space):
            configuration = replace(start, chunk_lengths=lengths)
            tried[configuration] = tuple(
                simulate_prefill(model, configuration, profile, prompt) for prompt in prompts
            )
    means = {c: _mean((run.seconds for run in runs), prompts) for c, runs in tried.items()}
    best = min(tried, key=lambda c: (means[c], c.pruned_share, len(c.chunk_lengths)))
    return SearchResult(best, means[best], len(tried), tried[best])


def parse_prompts(text: str) -> dict[int, float]:
    """``64:1,512:3`` (or ``64,512``) as prompt tokens -> weight; raises SimulationError."""
    prompts: dict[int, float] = {}
    for part in text.split(","):
        tokens, _, weight = part.partition(":")
        try:
            prompts[int(tokens)] = prompts.get(int(tokens), 0.0) + float(weight or 1)
        except ValueError:
            raise SimulationError(
                f"prompt lengths {text!r}: expected TOKENS[:WEIGHT],... like 64:1,512:3"
            ) from None
    return prompts


def parse_shares(text: str) -> tuple[float, ...]:
    """``0.5,0.85`` as numbers from 0 to 1; raises SimulationError."""
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0.0 <= share <= 1.0 for share in shares):
        raise SimulationError(f"pruned shares {text!r}: expected numbers from 0 to 1 with commas")
    return shares


def _starts(space: SearchSpace) -> Iterator[Configuration]:
    for placement in space.placements:
        for share in space.pruned_shares:
            yield replace(OURS, name="searched", placement=placement, pruned_share=share, policy=space.policy)


def _promising(
    model: ModelShape,
    profile: DeviceProfile,
    start: Configuration,
    prompts: Mapping[int, float],
    space: SearchSpace,
) -> list[tuple[int, ...]]:
    """The sets with the least estimated time, and the whole sets; none that the NPU cannot hold."""
    useful = [n for n in _useful(space, prompts) if _fits(model, profile, replace(start, chunk_lengths=(n,)))]
    whole = [s for s in space.whole_sets if _fits(model, profile, replace(start, chunk_lengths=s))]
    lengths = useful or [min(space.chunk_lengths)]  # whose simulation says what does not fit
    costs = chunk_costs(model, start, CostModel(profile), lengths)
    sets = chain.from_iterable(combinations(lengths, size) for size in range(1, MAX_LENGTHS + 1))
    ranked = sorted(sets, key=lambda chosen: _estimate(costs, chosen, prompts))
    return list(dict.fromkeys([*ranked[:_SIMULATED], *whole]))


def _useful(space: SearchSpace, prompts: Iterable[int]) -> Sequence[int]:
    """Lengths up to the first that holds the longest prompt."""
    lengths = sorted(set(space.chunk_lengths))
    enough = [length for length in lengths if length >= max(prompts)]
    return [length for length in lengths if not enough or length <= enough[0]]


def _fits(model: ModelShape, profile: DeviceProfile, configuration: Configuration) -> bool:
    return npu_bytes(model, configuration, 0) <= profile.npu_memory_bytes


def _estimate(costs: ChunkCosts, lengths: Sequence[int], prompts: Mapping[int, float]) -> float:
    """What the planner expects of a set of lengths, the mean over the prompts."""
    of_set = ChunkCosts({n: costs.npu[n] for n in lengths}, {n: costs.cpu[n] for n in lengths})
    return _mean((of_set.prefill_s(plan_prefill(prompt, of_set)) for prompt in prompts), prompts)


def _mean(values: Iterable[float], prompts: Mapping[int, float]) -> float:
    """Weighted as the prompts are."""
    weighted = sum(value * weight for value, weight in zip(values, prompts.values(), strict=True))
    return weighted / sum(prompts.values())
