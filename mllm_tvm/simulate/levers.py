"""What each difference between the paper's configuration and ours brings, added one at a time.

``python -m mllm_tvm.simulate.levers`` prints it for the paper's five models and prompts 64 to 1024.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import exp, log, prod
from statistics import mean

from . import paper
from .configuration import OURS, PAPER, Configuration
from .models import MODELS, ModelShape
from .prefill import simulate_prefill
from .profile import DeviceProfile, load_profile

PROMPTS = (64, 256, 512, 1024)


def lever_steps() -> tuple[tuple[str, Configuration], ...]:
    """From the paper's configuration to ours; the first step, set-up, is no matter of scheduling."""
    set_up = replace(PAPER, sets_up=False)
    policy = replace(set_up, policy=OURS.policy)
    attention = OURS.separates_attention
    fused = replace(
        policy, pads_float=OURS.pads_float, fuses_float=OURS.fuses_float, separates_attention=attention
    )
    summed = replace(fused, merges_on_cpu=OURS.merges_on_cpu)
    merged = replace(summed, integer_mlp=OURS.integer_mlp)
    shared = replace(merged, merges_linears=OURS.merges_linears)
    last_row = replace(shared, last_row_head=OURS.last_row_head)
    return (
        ("paper", PAPER),
        ("set-up once, when the engine opens", set_up),
        ("policy", policy),
        ("float functions fused, valid rows only", fused),
        ("shadow results added on the CPU", summed),
        ("gated MLPs in integers, with their outliers", merged),
        ("linears of one input merged", shared),
        ("last layer on the last row", last_row),
        ("chunk lengths and planner", OURS),
    )


def lever_speedups(
    models: Iterable[ModelShape], profile: DeviceProfile, prompts: Sequence[int] = PROMPTS
) -> dict[str, float]:
    """Each step's speed over the step before it: geometric mean over models and prompts."""
    shapes = list(models)
    steps = lever_steps()
    seconds = {
        name: [simulate_prefill(m, step, profile, prompt).seconds for m in shapes for prompt in prompts]
        for name, step in steps
    }
    return {
        after: geometric_mean(a / b for a, b in zip(seconds[before], seconds[after], strict=True))
        for (before, _), (after, _) in pairwise(steps)
    }


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers."""
    return exp(mean(log(value) for value in values))


def main() -> None:
    """Prints each step's speed over the step before it, and all together."""
    speedups = lever_speedups(MODELS.values(), load_profile(paper.DEVICE))
    set_up, *others = speedups.values()
    for name, factor in speedups.items():
        print(f"x {factor:.3f}  {name}")
    print(f"x {set_up * prod(others):.3f}  all; x {prod(others):.3f} without the set-up")


if __name__ == "__main__":
    main()
