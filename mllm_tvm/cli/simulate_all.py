"""``mllm-tvm simulate --model all``: all models of the simulator side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllm_tvm.simulate.configuration import Configuration
    from mllm_tvm.simulate.summary import Summary

ALL = "all"
_OF_ONE_MODEL = ("ablation", "levers", "search", "plan", "trace", "report")


def execute_all(args: argparse.Namespace, configuration: Configuration) -> int:
    """Simulates and prints every model; one that the device cannot hold has the reason in place of figures.

    Raises SimulationError for an option that is of one model, and what the simulation of a model raises
    where that is not the model's size.
    """
    from mllm_tvm.simulate.energy import ASSUMPTIONS
    from mllm_tvm.simulate.errors import SimulationError

    given = [name for name in _OF_ONE_MODEL if getattr(args, name)]
    if given:
        raise SimulationError(f"--{given[0]} is of one model: name it with --model instead of {ALL}")
    found = dict(_summaries(args, configuration))
    if args.json:
        models = [asdict(s) if not isinstance(s, str) else {"model": m, "error": s} for m, s in found.items()]
        print(json.dumps({"models": models, "energy_assumptions": ASSUMPTIONS}))
    else:
        print(_table(found, args, configuration))
    return 0


def _summaries(args: argparse.Namespace, configuration: Configuration) -> Iterator[tuple[str, Summary | str]]:
    from mllm_tvm.simulate.errors import ModelTooLargeError
    from mllm_tvm.simulate.models import MODELS
    from mllm_tvm.simulate.profile import load_profile
    from mllm_tvm.simulate.summary import Request, simulate_request

    profile = load_profile(args.profile)
    for name, shape in MODELS.items():
        request = Request(shape, profile, args.prompt, args.output, args.decode_on)
        try:
            yield name, simulate_request(request, configuration)[0]
        except ModelTooLargeError as error:
            yield name, str(error)


def _table(found: Mapping[str, Summary | str], args: argparse.Namespace, configuration: Configuration) -> str:
    title = f"{args.profile}, {configuration.name}, {configuration.policy}, {args.prompt} tokens"
    head = (
        f"{'model':13} {'prefill s':>9} {'tokens/s':>8} {'bound s':>8} {'NPU idle':>8} {'energy J':>8} "
        f"{'memory GB':>9} {'decode tokens/s':>15}  chunks"
    )
    return "\n".join([title, head, *(_row(name, summary) for name, summary in found.items())])


def _row(name: str, s: Summary | str) -> str:
    if isinstance(s, str):
        return f"{name:13} {s}"
    return (
        f"{name:13} {s.prefill_s:9.3f} {s.tokens_per_s:8.0f} {s.lower_bound_s:8.3f} {s.bubble:8.1%} "
        f"{s.energy_j:8.2f} {s.peak_memory_bytes / 1e9:9.2f} {s.decode_tokens_per_s:15.1f}  "
        f"{', '.join(map(str, s.chunk_lengths))}"
    )


def is_all(args: argparse.Namespace) -> bool:
    """Whether every model was asked for."""
    return str(args.model).lower() == ALL
