"""``mllm-tvm eval``: how good a compiled model is, against its float original."""

from __future__ import annotations

import argparse
import json

from mllm_tvm.cli.arguments import add_compile_arguments, add_engine_arguments

HELP = "measure a model's perplexity on text, compiled and in float"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", help="Hugging Face model directory")
    parser.add_argument(
        "--tasks", required=True, metavar="perplexity:FILE", help="what to measure, on which text"
    )
    parser.add_argument(
        "--schemes", default="float,ours", metavar="NAME,NAME", help="float, ours (default: both)"
    )
    parser.add_argument("--segments", type=int, default=150, metavar="N", help="segments to measure (150)")
    add_engine_arguments(parser)
    add_compile_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    """Runs the command: one line (with --json one object) for each scheme."""
    from mllm_tvm.build import CompileSettings
    from mllm_tvm.evaluate import evaluate

    settings = CompileSettings.of(args.target, args.chunk_lengths, args.calibration)
    results = evaluate(args.model, args.tasks, args.schemes.split(","), args.segments, args.device, settings)
    for result in results:
        print(json.dumps(result) if args.json else _text(result))
    return 0


def _text(result: dict[str, object]) -> str:
    measured = f"perplexity {result['perplexity']:.4f}, {result['bits_per_byte']:.4f} bits per byte"
    return f"{result['task']}  {result['scheme']:6} {measured} ({result['n']} tokens)"
