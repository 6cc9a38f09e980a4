"""``mllm-tvm inspect``: the functions of a model, what shares them, and what that saves."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mllm_tvm.cli.arguments import MODEL_HELP, lengths

if TYPE_CHECKING:
    from mllm_tvm.sharing import Sharing

HELP = "show functions, where they run, and how chunks and layers share them"
KINDS = {
    "linear": "int8 matrix product; its weights differ from call to call, its code does not",
    "mlp": "int8 gate and up projections, activation and down projection in one launch",
    "shadow": "float product of the few activations that int8 clips, added to a linear's result",
    "dynamic": "mixes tokens (attention): reads the cache of all chunks before it",
    "float": "norms, rotary embedding, activations, quantizing and dequantizing",
}
_ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("artifact", nargs="?", default=None, metavar="ARTIFACT", help="a compiled artifact")
    parser.add_argument(
        "--config",
        default=None,
        metavar="MODEL",
        help=f"a model that is not compiled: {MODEL_HELP}, config.json without weights, the name of a "
        "published model, or all of these (all)",
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
        "--shadow-share",
        type=float,
        default=0.15,
        metavar="S",
        help="with --config: share of the linears' inputs with a shadow path (0.15)",
    )
    parser.add_argument("--token-axis", action="store_true", help="with --config: print the analysis instead")


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    from mllm_tvm.errors import ArtifactError
    from mllm_tvm.inspection import inspect_artifact, inspect_model, token_axis_table
    from mllm_tvm.published import published_names

    if (args.artifact is None) == (args.config is None):
        raise ArtifactError("inspect what? expected an artifact or --config, one of the two")
    names = published_names() if args.config == _ALL else [args.config]
    if args.artifact is not None:
        found = {args.artifact: inspect_artifact(args.artifact, args.prompt, args.chunk_lengths)}
    elif args.token_axis:
        print("\n".join(f"{name}:\n{token_axis_table(name)}" for name in names))
        return 0
    else:
        lengths = args.chunk_lengths or (256,)
        found = {name: inspect_model(name, args.prompt, lengths, args.shadow_share) for name in names}
    print(_json(found) if args.json else _text(found))
    return 0


def _json(found: Mapping[str, Sharing]) -> str:
    """One report, or for several models an object of them by name."""
    reports: dict[str, Any] = {
        name: {**asdict(sharing), "shared_share": sharing.shared_share, "saved_share": sharing.saved_share}
        for name, sharing in found.items()
    }
    return json.dumps(reports if len(reports) > 1 else next(iter(reports.values())))


def _text(found: Mapping[str, Sharing]) -> str:
    return _comparison(found) if len(found) > 1 else _functions(next(iter(found.values())))


def _functions(sharing: Sharing) -> str:
    """Every function of one model, what the kinds mean, and what sharing saves."""
    rows = [f"{'function':24} {'kind':8} {'runs on':8} {'calls':>6} {'(chunk, layer)':>15} {'weights':>11}"]
    rows += [
        f"{use.name:24} {use.kind:8} {use.processor:8} {use.calls:6} {use.pairs:15} "
        f"{use.parameter_bytes / 1e6:8.1f} MB"
        for use in sharing.functions
    ]
    kinds = dict.fromkeys(use.kind for use in sharing.functions)
    return "\n".join([*rows, "", *(f"{kind:8} {KINDS[kind]}" for kind in kinds), "", _summary(sharing)])


def _summary(sharing: Sharing) -> str:
    return (
        f"calls: of each function in one chunk; (chunk, layer): pairs that share it, "
        f"{_prompt(sharing)}\n"
        f"{sharing.npu_functions} NPU functions for each chunk length; {sharing.shared_calls} of "
        f"{sharing.calls} calls of a chunk ({sharing.shared_share:.0%}) are the same for all chunks\n"
        f"the NPU holds {_size(sharing.shared_bytes)}; with a graph for each chunk it would hold "
        f"{_size(sharing.separate_bytes)}: {sharing.saved_share:.1%} saved"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _prompt(sharing: Sharing) -> str:
    lengths = Counter(sharing.chunks)
    chunks = " + ".join(f"{count} x {length}" for length, count in lengths.items())
    return f"prompt of {sharing.prompt} tokens in chunks of {chunks}"


def _comparison(found: Mapping[str, Sharing]) -> str:
    """One line a model, and the paper's figures."""
    rows = [
        f"{'':14} {'NPU functions':>13} {'shared calls':>18} {'NPU holds':>10} {'unshared':>10} {'saved':>6}"
    ]
    rows += [
        f"{name:14} {s.npu_functions:13} {f'{s.shared_calls} of {s.calls} ({s.shared_share:.0%})':>18} "
        f"{_size(s.shared_bytes):>10} {_size(s.separate_bytes):>10} {s.saved_share:6.1%}"
        for name, s in found.items()
    ]
    first = next(iter(found.values()))
    return "\n".join(
        [
            *rows,
            f"{'the paper':14} {'':13} {'120 of 144 (83%)':>18} {'':10} {'up to':>10} {'75%':>6}",
            f"{_prompt(first)}; shared calls are the same for all chunks,",
            "unshared is what the NPU would hold with a graph for each chunk; --config NAME lists functions",
        ]
    )
