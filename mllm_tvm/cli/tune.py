"""``mllm-tvm tune``: search tilings of a model's NPU kernels on simulated or real devices."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mllm_tvm.cli.arguments import MODEL_HELP, lengths

if TYPE_CHECKING:
    from mllm_tvm.tuning.tuner import Progress
    from targets.hexagon.session import DeviceSession

HELP = "tune the NPU kernels of a model and keep the result for the compiler"
_DEFAULT_LENGTHS = (16, 64, 256)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=f"{MODEL_HELP}, artifact, or a name like gemma-2b")
    parser.add_argument("--target", default="qcom/hexagon-v68", metavar="TAG", help="Hexagon target")
    parser.add_argument("--trials", type=int, default=64, metavar="N", help="trials for each kernel (64)")
    parser.add_argument(
        "--tracker", default=None, metavar="HOST:PORT", help="RPC tracker (default: emulators started here)"
    )
    parser.add_argument(
        "--key", default="hexagon-qemu", metavar="KEY", help="devices of the tracker (hexagon-qemu)"
    )
    parser.add_argument(
        "--devices", type=int, default=2, metavar="N", help="devices, and compilers, at a time (2)"
    )
    parser.add_argument(
        "--chunk-lengths", type=lengths, default=_DEFAULT_LENGTHS, metavar="N,N", help="rows (16,64,256)"
    )
    parser.add_argument(
        "--logs", default=None, metavar="DIR", help="log folder (tuning_logs beside the package)"
    )


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    from mllm_tvm.tuning.log import TuningLog
    from mllm_tvm.tuning.shapes import model_shapes
    from mllm_tvm.tuning.tuner import TuneSettings, tune
    from mllm_tvm.tuning.workload import canonical
    from targets.hexagon.target import hexagon_target

    target = hexagon_target(args.target)
    settings = TuneSettings(trials=args.trials, devices=args.devices)
    shapes = list(dict.fromkeys(map(canonical, model_shapes(args.model, args.chunk_lengths))))
    log = TuningLog(target, Path(args.logs) if args.logs else None)
    latest: dict[str, Progress] = {}

    def report(progress: Progress) -> None:
        latest[str(progress.shape)] = progress
        print(_line(progress, settings.trials, len(latest), len(shapes)), file=sys.stderr)

    tune(shapes, target, log, _opener(args.tracker, args.key), settings, report)
    if args.json:
        print(json.dumps({name: asdict(progress) for name, progress in latest.items()}))
    else:
        print(f"{log.folder}: {len(latest)} kernels tuned for {target.tag}")
    return 0


def _opener(tracker: str | None, key: str) -> Callable[[Path], DeviceSession]:
    from targets.hexagon.session import open_session

    device = f"tracker://{tracker}/{key}" if tracker else "qemu"
    return lambda server: open_session(device, server)


def _line(progress: Progress, trials: int, number: int, total: int) -> str:
    failed = f", {progress.failed} failed" if progress.failed else ""
    return (
        f"[{number}/{total}] {progress.shape}: {progress.trials} of {trials} trials{failed}, best "
        f"{progress.best_packets:.0f} packets = {progress.share:.1%} of the limit, {progress.seconds:.0f} s"
    )
