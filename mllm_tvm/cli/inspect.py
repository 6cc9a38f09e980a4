"""``mllm-tvm inspect``: the functions of a model, what shares them, and what that saves."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from mllm_tvm.cli.arguments import lengths

if TYPE_CHECKING:
    from mllm_tvm.sharing import Sharing

HELP = "show functions, where they run, and how chunks and layers share them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("artifact", nargs="?", default=None, metavar="ARTIFACT", help="a compiled artifact")
    parser.add_argument(
        "--config",
        default=None,
        metavar="NAME|FILE",
        help="partition a model without its weights: a config.json, or a published model (all: each)",
    )
    parser.add_argument("--prompt", type=int, default=1024, metavar="N", help="prompt tokens (1024)")
    parser.add_argument(
        "--chunk-lengths",
        type=lengths,
        default=None,
        metavar="N,N",
        help="chunk lengths (the artifact's; 256 with --config)",
    )
    parser.add_argument(
        "--shadow-share", type=float, default=0.15, metavar="S", help="layers with a shadow path (0.15)"
    )
    parser.add_argument("--token-axis", action="store_true", help="with --config: print the analysis instead")


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    from mllm_tvm.errors import ArtifactError
    from mllm_tvm.inspection import inspect_artifact, inspect_model, token_axis_table
    from mllm_tvm.published import published_names

    if (args.artifact is None) == (args.config is None):
        raise ArtifactError("inspect what? expected an artifact or --config, one of the two")
    if args.artifact is not None:
        _print(inspect_artifact(args.artifact, args.prompt, args.chunk_lengths), args)
        return 0
    names = published_names() if args.config == "all" else [args.config]
    for name in names:
        if args.token_axis:
            print(token_axis_table(name))
            continue
        if len(names) > 1 and not args.json:
            print(f"{name}:")
        _print(inspect_model(name, args.prompt, args.chunk_lengths or (256,), args.shadow_share), args)
    return 0


def _print(sharing: Sharing, args: argparse.Namespace) -> None:
    if args.json:
        report = {**asdict(sharing), "shared_share": sharing.shared_share, "saved_share": sharing.saved_share}
        print(json.dumps(report))
    else:
        print(_text(sharing))


def _text(sharing: Sharing) -> str:
    rows = [f"{'function':24} {'kind':8} {'runs on':8} {'calls':>6} {'(chunk, call)':>14} {'weights':>12}"]
    rows += [
        f"{use.name:24} {use.kind:8} {use.processor:8} {use.calls:6} {use.pairs:14} "
        f"{use.parameter_bytes / 1e6:9.1f} MB"
        for use in sharing.functions
    ]
    return "\n".join([*rows, _summary(sharing)])


def _summary(sharing: Sharing) -> str:
    return (
        f"{sharing.npu_functions} NPU functions for each chunk length; {sharing.shared_calls} of "
        f"{sharing.calls} calls of a chunk ({sharing.shared_share:.0%}) are shared by all chunks\n"
        f"a prompt of {sharing.prompt} tokens in {len(sharing.chunks)} chunks: the NPU holds "
        f"{sharing.shared_bytes / 1e9:.2f} GB, a graph for each chunk would be "
        f"{sharing.separate_bytes / 1e9:.2f} GB: {sharing.saved_share:.1%} saved"
    )
