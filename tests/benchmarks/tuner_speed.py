"""Trials a minute of the tuner on two devices against one, in turns.

    python -m tests.benchmarks.tuner_speed [--shape MxKxN] [--trials N] [--rounds N] [--json]

Each round tunes the shape from nothing with one device and then with two, on emulators here. The first batch
is not counted: it starts compilers and devices. On a machine that does other work too the ratio says little:
``load`` is the load average before the first round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from mllm_tvm.tuning.log import TuningLog
from mllm_tvm.tuning.profile_kernels import parse_shape
from mllm_tvm.tuning.tuner import Progress, TuneSettings, tune
from mllm_tvm.tuning.workload import Shape
from targets.hexagon.session import open_session
from targets.hexagon.target import hexagon_target


def trials_per_minute(shape: Shape, tag: str, trials: int, devices: int) -> float:
    """Finished and failed trials a minute after the first batch."""
    seen: list[tuple[float, int]] = []

    def report(progress: Progress) -> None:
        seen.append((time.perf_counter(), progress.trials + progress.failed))

    target = hexagon_target(tag)
    with tempfile.TemporaryDirectory() as folder:
        log = TuningLog(target, Path(folder))
        settings = TuneSettings(trials=trials, devices=devices)
        tune([shape], target, log, partial(open_session, "qemu"), settings, report)
    (begin, first), (end, last) = seen[0], seen[-1]
    return 60 * (last - first) / (end - begin)


def main() -> None:
    """Prints the rates and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="64x2048x2048")
    parser.add_argument("--target", default="qcom/hexagon-v68")
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for devices, found in rates.items():
            found.append(
                trials_per_minute(parse_shape(options.shape), options.target, options.trials, devices)
            )
    one, two = (statistics.median(found) for found in rates.values())
    report = {
        "shape": options.shape,
        "load": round(load, 1),
        "one": round(one),
        "two": round(two),
        "ratio": round(two / one, 2),
    }
    print(json.dumps(report) if options.json else " ".join(f"{k}={v}" for k, v in report.items()))


if __name__ == "__main__":
    main()
