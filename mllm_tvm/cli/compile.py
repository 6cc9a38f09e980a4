"""``mllm-tvm compile``: a model to an artifact directory."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from mllm_tvm.cli.arguments import MODEL_HELP, add_compile_arguments, show_stage

HELP = "compile a Hugging Face directory, an ONNX or a GGUF file into an artifact"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("output", help="artifact directory to make (an older artifact there is replaced)")
    add_compile_arguments(parser)
    parser.add_argument("--recipe", default=None, metavar="FILE", help="use this recipe, do not calibrate")
    parser.add_argument(
        "--plan",
        default=None,
        metavar="FILE",
        help="compile for the chunk lengths that simulate --search found",
    )
    parser.add_argument(
        "--no-fuse-mlp",
        action="store_true",
        help="compute the activations of MLPs without shadow paths on the CPU too, not inside NPU functions",
    )
    parser.add_argument("--dump-ir", default=None, metavar="DIR", help="write the IR after each pass here")


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    from mllm_tvm.build import CompileSettings, compile_model

    start = time.perf_counter()
    lengths = _planned_lengths(args.plan, args.chunk_lengths) if args.plan else args.chunk_lengths
    settings = CompileSettings.of(args.target, lengths, args.calibration, args.recipe, not args.no_fuse_mlp)
    dump = Path(args.dump_ir) if args.dump_ir else None
    artifact = compile_model(Path(args.model), Path(args.output), settings, dump, show_stage)
    report = {
        "artifact": str(artifact.path),
        "target": artifact.manifest.target,
        "chunk_lengths": list(artifact.manifest.chunk_lengths),
        "functions": len(artifact.manifest.graph.functions),
        "calls": len(artifact.manifest.graph.calls),
        "bytes": sum(entry.bytes for entry in artifact.manifest.files.values()),
        "compile_s": round(time.perf_counter() - start, 3),
    }
    print(json.dumps(report) if args.json else _text(report))
    return 0


def _planned_lengths(plan: str, lengths: tuple[int, ...] | None) -> tuple[int, ...]:
    """The chunk lengths of a plan file; raises CompileError when others were given too."""
    from mllm_tvm.errors import CompileError
    from mllm_tvm.simulate.plan import read_plan

    if lengths is not None:
        raise CompileError(f"both --plan and --chunk-lengths {lengths} were given: give one of them")
    return read_plan(plan).chunk_lengths


def _text(report: dict[str, object]) -> str:
    return (
        f"{report['artifact']}: {report['functions']} functions for {report['calls']} calls, "
        f"target {report['target']}, chunk lengths {report['chunk_lengths']}, "
        f"{int(str(report['bytes'])) / 1e6:.1f} MB in {report['compile_s']} s"
    )
