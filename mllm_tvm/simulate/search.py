"""Search of chunk lengths and placement for a device, a model and a distribution of prompt lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from .configuration import OURS, Configuration, Placement
from .errors import SimulationError
from .models import ModelShape
from .prefill import simulate_prefill
from .profile import DeviceProfile

CHUNK_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
MAX_LENGTHS = 3
"""Compiled chunk lengths in a plan: each is one more copy of every NPU function."""
PLACEMENTS = (Placement(activation="cpu"), Placement(activation="npu"))
"""What the compiler can do: gated MLPs in one NPU function, or their activations on the CPU."""


@dataclass(frozen=True)
class SearchSpace:
    """What is tried. ``pruned_shares`` is the user's choice of accuracy: with several the fastest wins."""

    chunk_lengths: tuple[int, ...] = CHUNK_LENGTHS
    placements: tuple[Placement, ...] = PLACEMENTS
    pruned_shares: tuple[float, ...] = (0.85,)


@dataclass(frozen=True)
class SearchResult:
    """The best configuration, its mean prefill seconds, and what was tried."""

    configuration: Configuration
    seconds: float
    tried: int


def search(
    model: ModelShape, profile: DeviceProfile, prompts: Mapping[int, float], space: SearchSpace
) -> SearchResult:
    """The configuration with the least mean prefill time; ``prompts`` maps tokens to their weight.

    First the chunk length that each prompt and placement likes best alone, then sets of up to three of the
    lengths that won; of equal ones the one that prunes least. Raises SimulationError for
    no prompts, or weights that are not positive.
    """
    total = sum(prompts.values())
    if not prompts or any(weight <= 0 for weight in prompts.values()):
        raise SimulationError(f"prompt lengths {dict(prompts)}: expected at least one, weights above 0")

    def seconds(configuration: Configuration) -> float:
        runs = {n: simulate_prefill(model, configuration, profile, n).seconds for n in prompts}
        return sum(runs[n] * weight for n, weight in prompts.items()) / total

    tried: dict[Configuration, float] = {}
    for start in _starts(space):
        for configuration in _length_sets(model, profile, start, prompts, space):
            tried[configuration] = seconds(configuration)
    best = min(tried, key=lambda c: (tried[c], c.pruned_share, len(c.chunk_lengths)))
    return SearchResult(best, tried[best], len(tried))


def parse_prompts(text: str) -> dict[int, float]:
    """``64:1,512:3`` (or ``64,512``) as prompt tokens -> weight; raises SimulationError."""
    prompts: dict[int, float] = {}
    for part in text.split(","):
        tokens, _, weight = part.partition(":")
        try:
            prompts[int(tokens)] = float(weight or 1)
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
            yield replace(OURS, name="searched", placement=placement, pruned_share=share)


def _length_sets(
    model: ModelShape,
    profile: DeviceProfile,
    start: Configuration,
    prompts: Mapping[int, float],
    space: SearchSpace,
) -> Iterator[Configuration]:
    won: set[int] = set()
    for prompt in prompts:
        alone = {length: replace(start, chunk_lengths=(length,)) for length in _useful(space, prompt)}
        times = {n: simulate_prefill(model, c, profile, prompt).seconds for n, c in alone.items()}
        won.update(sorted(times, key=lambda length: times[length])[:2])
    for size in range(1, MAX_LENGTHS + 1):
        for lengths in combinations(sorted(won), size):
            yield replace(start, chunk_lengths=lengths)


def _useful(space: SearchSpace, prompt: int) -> Sequence[int]:
    """Lengths up to the first that holds the whole prompt."""
    lengths = sorted(space.chunk_lengths)
    enough = [length for length in lengths if length >= prompt]
    return [length for length in lengths if not enough or length <= enough[0]]
