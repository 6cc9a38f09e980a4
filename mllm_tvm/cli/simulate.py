"""``mllm-tvm simulate``: what a device would do with a model; no device and no weights are needed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from mllm_tvm.cli.simulate_all import execute_all, is_all

if TYPE_CHECKING:
    from mllm_tvm.simulate.configuration import Configuration
    from mllm_tvm.simulate.prefill import PrefillRun
    from mllm_tvm.simulate.search import SearchResult
    from mllm_tvm.simulate.summary import Request, Summary

HELP = "simulate a model's prefill and decode on a device profile; needs no device and no weights"


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
    parser.add_argument("--prompt", type=int, default=1024, metavar="N", help="prompt tokens (1024)")
    parser.add_argument("--output", type=int, default=32, metavar="N", help="decoded tokens (32)")
    parser.add_argument("--decode-on", default="cpu", metavar="cpu|npu", help="where decode runs (cpu)")
    parser.add_argument(
        "--configuration", default=None, metavar="NAME", help="the system: ours (default), paper, cpu, ..."
    )
    parser.add_argument(
        "--policy",
        default=None,
        metavar="NAME",
        help="scheduling rule, in place of the configuration's; paper, in-order or sequential choose the "
        "paper's configuration unless --configuration is given",
    )
    parser.add_argument("--ablation", action="store_true", help="the paper's steps, from CPU only to ours")
    parser.add_argument("--levers", action="store_true", help="what each difference from the paper brings")
    parser.add_argument("--search", action="store_true", help="find the best chunk lengths and placement")
    parser.add_argument(
        "--prompts",
        default=None,
        metavar="N[:W],...",
        help="prompt lengths and weights for --search (--prompt)",
    )
    parser.add_argument(
        "--pruned-shares",
        default="0.85",
        metavar="S,S",
        help="--search: shares of layers without shadows that are accurate enough (0.85); the fastest wins",
    )
    parser.add_argument(
        "--plan", default=None, metavar="FILE", help="write what --search found for compile --plan"
    )
    parser.add_argument("--trace", default=None, metavar="FILE", help="write a Chrome trace of the prefill")
    parser.add_argument("--report", default=None, metavar="FILE", help="write an HTML report")


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    if is_all(args):
        return execute_all(args, _configuration(args))
    from mllm_tvm.simulate.models import find_model
    from mllm_tvm.simulate.profile import load_profile
    from mllm_tvm.simulate.summary import Request, simulate_request

    request = Request(
        find_model(args.model), load_profile(args.profile), args.prompt, args.output, args.decode_on
    )
    searched = _search(args, request) if args.search or args.plan else None
    configuration = searched.configuration if searched else _configuration(args)
    summary, run = simulate_request(request, configuration)
    steps = _ablation(request) if args.ablation else []
    levers = _levers(request) if args.levers else {}
    if args.trace:
        _write_trace(args.trace, run, summary)
    if args.report:
        _write_report(args.report, run, summary, steps)
    if args.json:
        print(json.dumps(_json(summary, steps, levers, searched)))
    else:
        print(_text(summary, steps, levers, searched))
    return 0


def _configuration(args: argparse.Namespace) -> Configuration:
    from mllm_tvm.runtime.policies import find_policy
    from mllm_tvm.simulate.configuration import OURS, find_configuration

    policy = args.policy
    if policy is not None:
        find_policy(policy)
    name = args.configuration or (OURS.name if policy in (None, OURS.policy) else "paper")
    configuration = find_configuration(name)
    return configuration if policy is None else replace(configuration, policy=policy)


def _search(args: argparse.Namespace, request: Request) -> SearchResult:
    from mllm_tvm.simulate.plan import write_plan
    from mllm_tvm.simulate.search import SearchSpace, parse_prompts, parse_shares, search

    prompts = parse_prompts(args.prompts or str(args.prompt))
    space = SearchSpace(pruned_shares=parse_shares(args.pruned_shares))
    result = search(request.model, request.profile, prompts, space)
    if args.plan:
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


def _write_report(path: str, run: PrefillRun, summary: Summary, steps: Sequence[Summary]) -> None:
    from mllm_tvm.report.html import html_report, write_html_report
    from mllm_tvm.report.timeline import timeline_events
    from mllm_tvm.simulate.energy import ASSUMPTIONS

    title = f"{summary.model} on {summary.profile}: {summary.prompt} tokens, policy {summary.policy}"
    bars = {step.configuration: step.tokens_per_s for step in steps}
    facts = dict(line.split(": ", 1) for line in _lines(summary))
    write_html_report(path, html_report(title, facts, timeline_events(run.spans), bars, ASSUMPTIONS))


def _json(
    summary: Summary, steps: Sequence[Summary], levers: dict[str, float], searched: SearchResult | None
) -> dict[str, object]:
    from mllm_tvm.simulate.energy import ASSUMPTIONS

    data: dict[str, object] = asdict(summary)
    if steps:
        data["ablation"] = [asdict(step) for step in steps]
    if levers:
        data["levers"] = levers
    if searched:
        data["search"] = {"mean_prefill_s": searched.seconds, "tried": searched.tried}
    data["energy_assumptions"] = ASSUMPTIONS
    return data


def _lines(summary: Summary) -> list[str]:
    s = summary
    return [
        f"prefill: {s.prefill_s:.3f} s, {s.tokens_per_s:.0f} tokens/s, chunks {list(s.chunk_lengths)}",
        f"lower bound: {s.lower_bound_s:.3f} s for any order of these tasks",
        f"NPU: busy {s.npu_busy_s:.3f} s, idle {s.bubble:.1%} between its first and last task",
        f"CPU: busy {s.cpu_busy_s:.3f} s",
        f"energy: {s.energy_j:.2f} J prefill, {s.decode_energy_j:.2f} J decode",
        f"peak memory: {s.peak_memory_bytes / 1e9:.2f} GB",
        f"decode: {s.output} tokens in {s.decode_s:.3f} s, {s.decode_tokens_per_s:.1f} tokens/s",
    ]


def _text(
    summary: Summary, steps: Sequence[Summary], levers: dict[str, float], searched: SearchResult | None
) -> str:
    from mllm_tvm.simulate.energy import ASSUMPTIONS

    placement = ", ".join(f"{kind} on {processor}" for kind, processor in summary.placement.items())
    lines = [f"{summary.model}, {summary.profile}, {summary.configuration} ({placement}), {summary.policy}"]
    if searched:
        lengths = ", ".join(map(str, searched.configuration.chunk_lengths))
        lines.append(
            f"search: chunk lengths {lengths}; mean {searched.seconds:.3f} s; {searched.tried} tried"
        )
    lines += [f"  {line}" for line in _lines(summary)]
    if steps:
        lines.append("ablation:")
        lines += [
            f"  {step.configuration:16} {step.tokens_per_s:8.1f} tokens/s {step.prefill_s:9.3f} s "
            f"{step.energy_j:9.2f} J {step.bubble:6.1%} idle {step.peak_memory_bytes / 1e9:6.2f} GB"
            for step in steps
        ]
    lines += [f"  x{factor:.3f} {name}" for name, factor in levers.items()]
    return "\n".join([*lines, "energy model: " + "; ".join(ASSUMPTIONS)])
