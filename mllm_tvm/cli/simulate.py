"""``mllm-tvm simulate``: what a device would do with a model; no device and no weights are needed."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from mllm_tvm.cli.arguments import lengths
from mllm_tvm.cli.simulate_all import execute_all, is_all
from mllm_tvm.cli.simulate_text import Findings, facts, findings_json, findings_text, title

if TYPE_CHECKING:
    from mllm_tvm.simulate.configuration import Configuration
    from mllm_tvm.simulate.prefill import PrefillRun
    from mllm_tvm.simulate.search import SearchResult
    from mllm_tvm.simulate.summary import Request, Summary

HELP = "simulate a model's prefill and decode on a device profile; needs no device and no weights"
_PROMPT = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--model", default="qwen1.5-1.8b", metavar="NAME", help="a model shape (qwen1.5-1.8b), or all"
    )
    parser.add_argument(
        "--profile",
        default="snapdragon-8gen3",
        metavar="NAME|FILE",
        help="a device profile (snapdragon-8gen3)",
    )
    parser.add_argument("--prompt", type=int, default=None, metavar="N", help=f"prompt tokens ({_PROMPT})")
    parser.add_argument("--output", type=int, default=32, metavar="N", help="decoded tokens (32)")
    parser.add_argument("--decode-on", default="cpu", metavar="cpu|npu", help="where decode runs (cpu)")
    _add_configuration_arguments(parser)
    parser.add_argument("--ablation", action="store_true", help="the paper's steps, from CPU only to ours")
    parser.add_argument("--levers", action="store_true", help="what each difference from the paper brings")
    parser.add_argument("--search", action="store_true", help="find the best chunk lengths and placement")
    parser.add_argument(
        "--prompts",
        default=None,
        metavar="N[:W],...",
        help="--search: prompt lengths and weights (--prompt)",
    )
    parser.add_argument(
        "--plan", default=None, metavar="FILE", help="--search: write what was found, for compile --plan"
    )
    parser.add_argument("--trace", default=None, metavar="FILE", help="write a Chrome trace of the prefill")
    parser.add_argument("--report", default=None, metavar="FILE", help="write an HTML report")


def _add_configuration_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--configuration",
        default=None,
        metavar="NAME",
        help="the system: ours (default), paper, cpu, naive-npu, chunk-sharing, shadow-outliers, ...",
    )
    parser.add_argument(
        "--policy",
        default=None,
        metavar="NAME",
        help="scheduling rule, in place of the configuration's: ours, paper, in-order or sequential; all but "
        "ours choose the paper's configuration unless --configuration or --search is given",
    )
    parser.add_argument(
        "--chunk-lengths",
        type=lengths,
        default=None,
        metavar="N,N",
        help="compiled chunk lengths, in place of the configuration's; --search: those to choose from",
    )
    parser.add_argument(
        "--pruned-share",
        default=None,
        metavar="S",
        help="share of layers without shadow paths, in place of the configuration's; --search: with commas, "
        "shares that are accurate enough: the fastest wins",
    )


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    from mllm_tvm.simulate.energy import energy_assumptions
    from mllm_tvm.simulate.models import find_model
    from mllm_tvm.simulate.profile import load_profile
    from mllm_tvm.simulate.summary import Request, simulate_request

    _check_options(args)
    if is_all(args):
        return execute_all(args, _configuration(args), _PROMPT if args.prompt is None else args.prompt)
    prompts = _prompts(args)
    prompt = max(prompts) if args.prompt is None else args.prompt
    request = Request(find_model(args.model), load_profile(args.profile), prompt, args.output, args.decode_on)
    searched = _search(args, request, prompts) if args.search else None
    configuration = searched.configuration if searched else _configuration(args)
    summary, run = simulate_request(request, configuration)
    found = Findings(
        summary,
        energy_assumptions(request.profile),
        _ablation(request) if args.ablation else (),
        _levers(request) if args.levers else {},
        searched,
    )
    if args.trace is not None:
        _write_trace(args.trace, run, summary)
    if args.report is not None:
        _write_report(args.report, run, found)
    print(json.dumps(findings_json(found)) if args.json else findings_text(found))
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Raises SimulationError for options that would have no effect."""
    from mllm_tvm.simulate.errors import SimulationError

    if args.search and args.configuration is not None:
        raise SimulationError("--search finds a configuration: leave out --configuration or --search")
    for name in ("prompts", "plan"):
        if getattr(args, name) is not None and not args.search:
            raise SimulationError(f"--{name} is of the search: add --search, or leave it out")


def _prompts(args: argparse.Namespace) -> dict[int, float]:
    """The prompt lengths of a search and their weights; without a search its one prompt."""
    from mllm_tvm.simulate.search import parse_prompts

    if args.prompts is not None:
        return parse_prompts(args.prompts)
    return {_PROMPT if args.prompt is None else args.prompt: 1.0}


def _configuration(args: argparse.Namespace) -> Configuration:
    from mllm_tvm.runtime.policies import find_policy
    from mllm_tvm.simulate.configuration import OURS, find_configuration

    policy = args.policy
    if policy is not None:
        find_policy(policy)
    name = args.configuration or (OURS.name if policy in (None, OURS.policy) else "paper")
    configuration = _overridden(find_configuration(name), args)
    return configuration if policy is None else replace(configuration, policy=policy)


def _overridden(configuration: Configuration, args: argparse.Namespace) -> Configuration:
    """With the given chunk lengths and pruned share; raises SimulationError where it has none."""
    from mllm_tvm.simulate.errors import SimulationError
    from mllm_tvm.simulate.search import parse_shares

    name = configuration.name
    if args.chunk_lengths is not None:
        if not configuration.chunk_lengths:
            raise SimulationError(f"configuration {name} runs a prompt whole: leave out --chunk-lengths")
        configuration = replace(configuration, chunk_lengths=args.chunk_lengths)
    if args.pruned_share is not None:
        share, *others = parse_shares(args.pruned_share)
        if others or configuration.pruned_share == 1.0:
            expected = "one share without --search" if others else f"none: {name} has no shadow paths"
            raise SimulationError(f"--pruned-share {args.pruned_share}: expected {expected}")
        configuration = replace(configuration, pruned_share=share)
    return configuration


def _search(args: argparse.Namespace, request: Request, prompts: dict[int, float]) -> SearchResult:
    from mllm_tvm.runtime.policies import find_policy
    from mllm_tvm.simulate.plan import write_plan
    from mllm_tvm.simulate.search import SearchSpace, parse_shares, search

    space = SearchSpace()
    if args.policy is not None:
        find_policy(args.policy)
        space = replace(space, policy=args.policy)
    if args.chunk_lengths is not None:
        space = replace(space, chunk_lengths=args.chunk_lengths, whole_sets=())
    if args.pruned_share is not None:
        space = replace(space, pruned_shares=parse_shares(args.pruned_share))
    result = search(request.model, request.profile, prompts, space)
    if args.plan is not None:
        write_plan(args.plan, result, request.model.name, request.profile.name)
    return result


def _ablation(request: Request) -> list[Summary]:
    from mllm_tvm.simulate.configuration import ABLATION, OURS
    from mllm_tvm.simulate.summary import simulate_request

    return [simulate_request(request, step)[0] for step in (*ABLATION, OURS)]


def _levers(request: Request) -> dict[str, float]:
    from mllm_tvm.simulate.levers import lever_speedups

    return lever_speedups([request.model], request.profile, (request.prompt,))


def _write_trace(path: str, run: PrefillRun, summary: Summary) -> None:
    from mllm_tvm.report.chrome_trace import write_chrome_trace
    from mllm_tvm.report.timeline import timeline_events

    write_chrome_trace(path, timeline_events(run.spans), asdict(summary))


def _write_report(path: str, run: PrefillRun, found: Findings) -> None:
    from mllm_tvm.report.html import html_report, write_html_report
    from mllm_tvm.report.timeline import timeline_events

    bars = {step.configuration: step.tokens_per_s for step in found.steps}
    events = timeline_events(run.spans)
    write_html_report(
        path, html_report(title(found.summary), facts(found.summary), events, bars, found.assumptions)
    )
