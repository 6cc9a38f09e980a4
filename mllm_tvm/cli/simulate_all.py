"""``mllm-tvm simulate --model all``: all models of the simulator side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from mllm_tvm.cli.simulate_text import chunks_text
from mllm_tvm.report.text import speed

if TYPE_CHECKING:
    from mllm_tvm.simulate.configuration import Configuration
    from mllm_tvm.simulate.summary import Request, Summary

ALL = "all"
_OF_ONE_MODEL = ("ablation", "levers", "search", "trace", "report")


def execute_all(args: argparse.Namespace, configuration: Configuration, prompt: int) -> int:
    """Simulates and prints every model; one that the device cannot hold has the reason in place of figures.

    Raises SimulationError for an option that is of one model, and what the simulation of a model raises
    where that is not the model's size.
    """
    from mllm_tvm.simulate.energy import energy_assumptions
    from mllm_tvm.simulate.errors import SimulationError
    from mllm_tvm.simulate.models import MODELS
    from mllm_tvm.simulate.profile import load_profile
    from mllm_tvm.simulate.summary import Request

    given = [name for name in _OF_ONE_MODEL if getattr(args, name) not in (None, False)]
    if given:
        raise SimulationError(f"--{given[0]} is of one model: name it with --model instead of {ALL}")
    profile = load_profile(args.profile)
    requests = [Request(m, profile, prompt, args.output, args.decode_on) for m in MODELS.values()]
    found = dict(_summaries(requests, configuration))
    assumptions = energy_assumptions(profile)
    if args.json:
        models = [asdict(s) if not isinstance(s, str) else {"model": m, "error": s} for m, s in found.items()]
        print(json.dumps({"models": models, "energy_assumptions": assumptions}))
    else:
        print(_table(found, profile.name, configuration, prompt))
        print("\n".join(["energy model:", *(f"  {assumption}" for assumption in assumptions)]))
    return 0


def _summaries(
    requests: Iterable[Request], configuration: Configuration
) -> Iterator[tuple[str, Summary | str]]:
    from mllm_tvm.simulate.errors import ModelTooLargeError
    from mllm_tvm.simulate.summary import simulate_request

    for request in requests:
        try:
            yield request.model.name, simulate_request(request, configuration)[0]
        except ModelTooLargeError as error:
            yield request.model.name, str(error)


def _table(
    found: Mapping[str, Summary | str], profile: str, configuration: Configuration, prompt: int
) -> str:
    c = configuration
    title = f"all models on {profile}, prompt {prompt}, configuration {c.name}, policy {c.policy}"
    head = (
        f"{'model':13} {'prefill s':>9} {'tokens/s':>8} {'bound s':>8} {'NPU idle':>8} {'energy J':>8} "
        f"{'memory GB':>9} {'decode tokens/s':>15}  chunks"
    )
    return "\n".join([title, head, *(_row(name, summary) for name, summary in found.items())])


def _row(name: str, s: Summary | str) -> str:
    if isinstance(s, str):
        return f"{name:13} {s}"
    return (
        f"{name:13} {s.prefill_s:9.3f} {speed(s.tokens_per_s):>8} {s.lower_bound_s:8.3f} {s.bubble:8.1%} "
        f"{s.energy_j:8.2f} {s.peak_memory_bytes / 1e9:9.2f} {s.decode_tokens_per_s:15.1f}  "
        f"{chunks_text(s.chunk_lengths)}"
    )


def is_all(args: argparse.Namespace) -> bool:
    """Whether every model was asked for."""
    return str(args.model).lower() == ALL
