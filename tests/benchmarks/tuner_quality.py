"""How well the tuner's cost model ranks kernels it never saw, from a tuning log.

    python -m tests.benchmarks.tuner_quality [--logs DIR] [--target TAG] [--json]

A quarter of the finished trials of each shape is held back, XGBoost learns the others, and predictions are
compared with measurements by Spearman's rank correlation: within each shape (mean over shapes), and over all
held-back trials as fractions of their shape's best.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from tvm.s_tir import meta_schedule as ms

from mllm_tvm.tuning.log import TuningLog
from mllm_tvm.tuning.search import cost_model, tune_context
from mllm_tvm.tuning.workload import Shape, shape_of
from targets.hexagon.target import hexagon_target

_HELD_BACK = 4
_FEWEST_TRIALS = 8


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; nan when one side is constant."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


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
    for shape, records in records_by_shape(log).items():
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


def main() -> None:
    """Prints the correlations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", default=None, help="log folder (tuning_logs)")
    parser.add_argument("--target", default="qcom/hexagon-v68")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    log = TuningLog(hexagon_target(options.target), Path(options.logs) if options.logs else None)
    found = correlation(log, options.seed)
    print(json.dumps(found) if options.json else "\n".join(f"{k}: {v:.3f}" for k, v in found.items()))


if __name__ == "__main__":
    main()
