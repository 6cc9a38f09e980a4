"""``mllm-tvm eval``: how good a compiled model is, against its float original and other schemes."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from mllm_tvm.cli.arguments import (
    MODEL_HELP,
    add_budgets,
    add_compile_arguments,
    add_engine_arguments,
    add_no_fuse_mlp,
    scheme_settings,
)

if TYPE_CHECKING:
    from mllm_tvm.evaluate import EvaluationSettings
    from mllm_tvm.evaluation.layers import LayerReport

HELP = "measure perplexity, last words and choices, in float and with quantization schemes"
_LAYER_SEGMENTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=f"{MODEL_HELP}, or artifact")
    parser.add_argument(
        "--tasks",
        required=True,
        metavar="KIND:FILE,...",
        help="perplexity:TEXT, lambada:JSONL (lines with text), choice:JSONL (good and bad; or prompt, "
        "choices and answer)",
    )
    parser.add_argument(
        "--schemes",
        default="float,ours",
        metavar="NAME,...",
        help="all, or of float, naive, dynamic, smoothquant, llm-int8, paper, ours, ours-pruned, hadamard, "
        "hadamard-shadow (float,ours)",
    )
    parser.add_argument(
        "--items",
        "--segments",
        type=int,
        default=None,
        metavar="N",
        help="measure the first N items of a task",
    )
    parser.add_argument(
        "--text-start",
        default=None,
        metavar="WORDS",
        help="a text begins at each paragraph that begins so (for files without <|endoftext|>)",
    )
    parser.add_argument(
        "--beginnings", action="store_true", help="measure the first 256 tokens of each text only"
    )
    parser.add_argument("--recipe", default=None, metavar="FILE", help="the recipe of scheme ours")
    add_budgets(parser)
    parser.add_argument(
        "--layers",
        action="store_true",
        help="compare every linear's output with float; needs a perplexity task",
    )
    add_engine_arguments(parser)
    add_compile_arguments(parser)
    add_no_fuse_mlp(parser)
    parser.set_defaults(device="host")


def execute(args: argparse.Namespace) -> int:
    """Runs the command: one line (with --json one object) for each scheme and task, or for each linear."""
    from mllm_tvm.build import CompileSettings
    from mllm_tvm.evaluate import EvaluationSettings, evaluate
    from mllm_tvm.evaluation.tasks import Limits

    settings = EvaluationSettings(
        args.device,
        CompileSettings.of(
            args.target, args.chunk_lengths, args.calibration, args.recipe, not args.no_fuse_mlp
        ),
        Limits(args.items, args.text_start, args.beginnings),
        scheme_settings(args),
    )
    if args.layers:
        return _layers(args, settings)
    for result in evaluate(args.model, args.tasks.split(","), args.schemes.split(","), settings):
        print(json.dumps(result) if args.json else _text(result), flush=True)
    return 0


def _layers(args: argparse.Namespace, settings: EvaluationSettings) -> int:
    from mllm_tvm.evaluate import layer_reports

    for report in layer_reports(
        args.model, args.tasks, args.schemes.split(",")[-1], settings, _LAYER_SEGMENTS
    ):
        if args.json:
            print(json.dumps(dataclasses.asdict(report)))
        else:
            print(_layer_text(report))
    return 0


def _text(result: dict[str, Any]) -> str:
    if result["perplexity"] is None:
        measured = f"accuracy {result['accuracy']:.4f}"
    else:
        measured = f"perplexity {result['perplexity']:.4f}, {result['bits_per_byte']:.4f} bits per byte"
    interval = _interval(result["ci95"], ".4f")
    text = f"{result['task']}  {result['scheme']:15} {measured} {interval} n={result['n']}"
    for scheme, (difference, *ends) in result["differences"].items():
        text += f"  vs {scheme} {difference:+.2%} {_interval(ends, '+.2%')}"
    return text


def _interval(ends: Any, style: str) -> str:
    low, high = ends
    return f"[{low:{style}}, {high:{style}}]"


def _layer_text(report: LayerReport) -> str:
    r = dataclasses.asdict(report)
    positions = ", ".join(f"{position} ({ratio:.1f} dB)" for position, ratio in r["worst_positions"])
    return (
        f"{r['weight']:45} {r['signal_to_noise']:6.1f} dB  worst tokens {positions}; "
        f"{r['remedy']}: {r['remedied']:.1f} dB"
    )
