"""``mllm-tvm compile``: a model to an artifact directory."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mllm_tvm.cli.arguments import MODEL_HELP, add_compile_arguments, add_no_fuse_mlp, show_stage

if TYPE_CHECKING:
    from mllm_tvm.build import CompileSettings

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
        help="compile what simulate --search found: chunk lengths, pruned share, placement and policy",
    )
    add_no_fuse_mlp(parser)
    parser.add_argument("--dump-ir", default=None, metavar="DIR", help="write the IR after each pass here")


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    from mllm_tvm.build import compile_model

    start = time.perf_counter()
    settings = _settings(args)
    dump = Path(args.dump_ir) if args.dump_ir else None
    artifact = compile_model(Path(args.model), Path(args.output), settings, dump, show_stage)
    report = {
        "artifact": str(artifact.path),
        "target": artifact.manifest.target,
        "chunk_lengths": list(artifact.manifest.chunk_lengths),
        "policy": artifact.manifest.policy,
        "functions": len(artifact.manifest.graph.functions),
        "calls": len(artifact.manifest.graph.calls),
        "bytes": sum(entry.bytes for entry in artifact.manifest.files.values()),
        "compile_s": round(time.perf_counter() - start, 3),
    }
    print(json.dumps(report) if args.json else _text(report))
    return 0


def _settings(args: argparse.Namespace) -> CompileSettings:
    """What the arguments say, and the plan file if there is one; raises CompileError when both say it."""
    from mllm_tvm.build import CompileSettings
    from mllm_tvm.errors import CompileError
    from mllm_tvm.simulate.plan import read_plan

    settings = CompileSettings.of(
        args.target, args.chunk_lengths, args.calibration, args.recipe, not args.no_fuse_mlp
    )
    if args.plan is None:
        return settings
    if args.chunk_lengths is not None:
        raise CompileError(
            f"both --plan and --chunk-lengths {args.chunk_lengths} were given: give one of them"
        )
    if args.no_fuse_mlp:
        raise CompileError("both --plan and --no-fuse-mlp were given: give one of them")
    plan = read_plan(args.plan)
    return dataclasses.replace(
        settings,
        chunk_lengths=plan.chunk_lengths,
        pruned_share=plan.pruned_share,
        fuse_mlp=plan.fuse_mlp,
        policy=plan.policy,
    )


def _text(report: dict[str, object]) -> str:
    return (
        f"{report['artifact']}: {report['functions']} functions for {report['calls']} calls, "
        f"target {report['target']}, chunk lengths {report['chunk_lengths']}, "
        f"{int(str(report['bytes'])) / 1e6:.1f} MB in {report['compile_s']} s"
    )
