"""``mllm-tvm profile kernels``: what the compiler's kernels cost on a device, shape by shape."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from mllm_tvm.cli.arguments import MODEL_HELP, lengths

if TYPE_CHECKING:
    from mllm_tvm.tuning.profile_kernels import KernelProfile

HELP = "count packets, multiply-accumulates a packet and bytes of NPU kernels"
_DEFAULT_LENGTHS = (16, 64, 256)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``profile kernels``."""
    parser.add_argument("shapes", nargs="*", metavar="MxKxN", help="shapes, besides those of --model")
    parser.add_argument("--model", default=None, help=f"{MODEL_HELP}, artifact, or a name like gemma-2b")
    parser.add_argument("--chunk-lengths", type=lengths, default=_DEFAULT_LENGTHS, metavar="N,N")
    parser.add_argument("--target", default="qcom/hexagon-v68", metavar="TAG", help="Hexagon target")
    parser.add_argument("--device", default="qemu", help="qemu (default) or tracker://host:port/key")
    parser.add_argument(
        "--contexts", type=int, default=1, metavar="N", help="also run on N hardware contexts (1)"
    )
    parser.add_argument("--untuned", action="store_true", help="use rules even where the log has a tiling")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def execute(args: argparse.Namespace) -> int:
    """Runs ``profile kernels``; the exit code is 1 when a result is not exact."""
    from mllm_tvm.tuning.errors import TuningError
    from mllm_tvm.tuning.log import TuningLog
    from mllm_tvm.tuning.profile_kernels import parse_shape, profile_kernels
    from mllm_tvm.tuning.shapes import model_shapes
    from targets.hexagon.session import open_session
    from targets.hexagon.target import hexagon_target

    shapes = [parse_shape(text) for text in args.shapes]
    shapes += model_shapes(args.model, args.chunk_lengths) if args.model else []
    if not shapes:
        raise TuningError("no kernels to profile: give shapes like 64x2048x2048, or --model")
    target = hexagon_target(args.target)
    log = None if args.untuned else TuningLog(target)
    found = profile_kernels(shapes, target, partial(open_session, args.device), log, args.contexts)
    if args.json:
        kernels = [{**asdict(profile), "chunk_length": profile.m} for profile in found]
        print(json.dumps({"target": target.tag, "device": args.device, "kernels": kernels}))
    else:
        print(_table(found))
    return 0 if all(profile.exact for profile in found) else 1


def _table(found: Sequence[KernelProfile]) -> str:
    header = (
        f"{'MxKxN':>18} {'packets':>12} {'MAC/packet':>10} {'limit':>6} {'GEMM':>6} "
        f"{'contexts':>10} {'MB':>8}  exact  tiling"
    )
    return "\n".join([header, *map(_row, found)])


def _row(profile: KernelProfile) -> str:
    tiling = profile.tiling
    name = f"{profile.m}x{profile.k}x{profile.n}"
    return (
        f"{name:>18} {profile.packets:>12} {profile.mac_per_packet:>10.1f} {profile.share:>6.1%} "
        f"{profile.gemm_mac_per_packet:>6.1f} {profile.contexts:>3}: {profile.context_ratio:>4.2f}x "
        f"{profile.memory_bytes / 1e6:>8.1f}  {'yes' if profile.exact else 'NO':>5}  "
        f"{tiling.rows}x{tiling.blocks}x{tiling.unroll} {'tuned' if profile.tuned else 'rule'}"
    )
