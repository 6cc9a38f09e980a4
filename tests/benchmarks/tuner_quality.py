"""How well the tuner's cost model ranks kernels it never saw, and what its search finds without the rule.

    python -m tests.benchmarks.tuner_quality [--logs DIR] [--target TAG] [--splits N] [--json]
    python -m tests.benchmarks.tuner_quality --search MxKxN ... [--trials N]

Ranks: a quarter of the finished trials of each shape is held back, XGBoost learns the others, and predictions
are compared with measurements by Spearman's rank correlation: within each shape (mean over shapes), and over
all held-back trials as fractions of their shape's best; means over random splits. Search: each shape is tuned
from nothing, without the rule's tiling as its first trial, and compared with the rule's tiling, which is the
best hand-written kernel.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path

import numpy as np
from tvm.s_tir import meta_schedule as ms

from mllm_tvm.tuning.bench import Kernel, run_kernels
from mllm_tvm.tuning.log import TuningLog
from mllm_tvm.tuning.profile_kernels import parse_shape
from mllm_tvm.tuning.search import cost_model, tune_context
from mllm_tvm.tuning.tuner import TuneSettings, tune
from mllm_tvm.tuning.workload import Shape, shape_of
from targets.hexagon.session import open_session
from targets.hexagon.target import HexagonTarget, hexagon_target
from targets.hexagon.tiling import rule_tiling

_HELD_BACK = 4
_FEWEST_TRIALS = 16


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; nan when one side is constant."""
    ranks = _ranks(a), _ranks(b)
    if min(np.ptp(ranks[0]), np.ptp(ranks[1])) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def records_by_shape(log: TuningLog) -> dict[Shape, list[ms.database.TuningRecord]]:
    """Finished trials of shapes that have enough of them."""
    if log.database is None:
        return {}
    shapes = {shape_of(record.workload.mod) for record in log.database.get_all_tuning_records()}
    found = {shape: log.records(shape) for shape in sorted(shapes)}
    return {shape: records for shape, records in found.items() if len(records) >= _FEWEST_TRIALS}


def correlation(log: TuningLog, seed: int) -> dict[str, float]:
    """Trains on three quarters of the trials, and compares on the rest."""
    rng = np.random.default_rng(seed)
    model = cost_model(warmup=1)
    held: list[tuple[ms.TuneContext, list, np.ndarray]] = []
    groups = list(records_by_shape(log).items())
    # It would train after each shape; once, with the last, is enough.
    model.adaptive_training, model.last_train_size = True, sys.maxsize
    for shape, records in groups:
        model.adaptive_training = shape != groups[-1][0]
        context = tune_context(shape, log.target, seed)
        costs = np.array([float(record.run_secs[0]) for record in records])
        back = rng.permutation(len(records)) < len(records) // _HELD_BACK
        candidates = [record.as_measure_candidate() for record in records]
        results = [ms.runner.RunnerResult([cost], None) for cost in costs]
        _update(model, context, candidates, results, ~back)
        test = [c for c, is_back in zip(candidates, back, strict=True) if is_back]
        held.append((context, test, costs.min() / costs[back]))
    predicted = [model.predict(context, candidates) for context, candidates, _ in held]
    measured = [scores for _, _, scores in held]
    within = [spearman(p, s) for p, s in zip(predicted, measured, strict=True)]
    return {
        "shapes": len(held),
        "held_back": sum(map(len, measured)),
        "spearman": spearman(np.concatenate(predicted), np.concatenate(measured)),
        "spearman_within_shapes": float(np.nanmean(within)),
    }


def _update(
    model: ms.cost_model.XGBModel,
    context: ms.TuneContext,
    candidates: list[ms.MeasureCandidate],
    results: list[ms.runner.RunnerResult],
    chosen: np.ndarray,
) -> None:
    pairs = [pair for pair, use in zip(zip(candidates, results, strict=True), chosen, strict=True) if use]
    model.update(context, [candidate for candidate, _ in pairs], [result for _, result in pairs])


def mean_correlation(log: TuningLog, splits: int) -> dict[str, float]:
    """The mean of ``correlation`` over random splits, and the smallest within shapes."""
    found = [correlation(log, seed) for seed in range(splits)]
    means = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
    return {**means, "spearman_within_shapes_least": min(row["spearman_within_shapes"] for row in found)}


def search(shape: Shape, target: HexagonTarget, trials: int) -> dict[str, object]:
    """Packets of what the search finds in ``trials`` trials, over those of the rule's tiling."""
    open_device = partial(open_session, "qemu")
    with tempfile.TemporaryDirectory() as folder:
        log = TuningLog(target, Path(folder))
        settings = TuneSettings(trials=trials, start_from_rule=False)
        tune([shape], target, log, open_device, settings, lambda progress: None)
        found = TuningLog(target, Path(folder)).best(shape)
        assert found is not None
        kernels = [Kernel(shape, tiling) for tiling in (found, rule_tiling(*shape))]
        outcomes = run_kernels(target, kernels, Path(folder), open_device)
    tuned, rule = (outcomes[kernel] for kernel in kernels)
    return {
        "shape": str(shape),
        "tiling": astuple(found),
        "packets": tuned.packets,
        "rule_packets": rule.packets,
        "ratio": round(tuned.packets / rule.packets, 4),
        "exact": tuned.exact and rule.exact,
    }


def main() -> None:
    """Prints the correlations, or the outcome of searches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", default=None, help="log folder (tuning_logs)")
    parser.add_argument("--target", default="qcom/hexagon-v68")
    parser.add_argument("--splits", type=int, default=5, help="random splits (5)")
    parser.add_argument(
        "--search", nargs="+", default=(), metavar="MxKxN", help="shapes to tune from nothing"
    )
    parser.add_argument("--trials", type=int, default=64, help="trials of a search (64)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    target = hexagon_target(options.target)
    if options.search:
        _print(options, [search(parse_shape(text), target, options.trials) for text in options.search])
    else:
        log = TuningLog(target, Path(options.logs) if options.logs else None)
        _print(options, [mean_correlation(log, options.splits)])


def _print(options: argparse.Namespace, rows: Sequence[Mapping[str, object]]) -> None:
    lines = [" ".join(f"{name}={value}" for name, value in row.items()) for row in rows]
    print(json.dumps(rows) if options.json else "\n".join(lines))


if __name__ == "__main__":
    main()
