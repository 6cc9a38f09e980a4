"""Tunes the integer linears of a target, shape by shape, with MetaSchedule."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from mllm_tvm.tuning.bench import OpenSession
from mllm_tvm.tuning.builder import HexagonBuilder
from mllm_tvm.tuning.errors import TuningError
from mllm_tvm.tuning.log import TuningLog
from mllm_tvm.tuning.measure import PACKETS_PER_SECOND, DeviceRunner
from mllm_tvm.tuning.search import cost_model, tune_context
from mllm_tvm.tuning.workload import Shape, canonical, rule_schedule
from targets.errors import DeviceError
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import check_address_space, fit_vtcm, rule_tiling

_WARMUP_TRIALS = 16
_LOGGER = "mllm_tvm.tuning.meta_schedule"


@dataclass(frozen=True)
class TuneSettings:
    """``trials`` finished trials a shape, in batches of ``batch``.

    As many candidates as there are ``devices`` are compiled at a time, and measured at a time.
    ``start_from_rule``: the first trial of a shape is the rule's tiling, so that a tuned kernel is never
    slower than an untuned one.
    """

    trials: int = 64
    batch: int = 16
    devices: int = 2
    seed: int = 1
    start_from_rule: bool = True

    def __post_init__(self) -> None:
        if min(self.trials, self.batch, self.devices) < 1:
            raise TuningError(f"bad {self}: trials, batch and devices must be at least 1")


@dataclass(frozen=True)
class Progress:
    """Where the tuning of one shape stands.

    ``best_packets`` is the cost of the best kernel, ``share`` the least cost there can be over it: that of
    256 MAC a packet (128 for one row), or of the memory traffic if that takes longer.
    """

    shape: Shape
    trials: int
    failed: int
    best_packets: float
    share: float
    seconds: float


Report = Callable[[Progress], None]


def tune(
    shapes: Sequence[Shape],
    target: HexagonTarget,
    log: TuningLog,
    open_session: OpenSession,
    settings: TuneSettings,
    report: Report,
) -> None:
    """Adds trials to ``log`` until each shape has ``settings.trials``; finished ones are kept and counted.

    Shapes are tuned as their ``canonical`` ones.

    ``open_session`` starts a device server (a path) on a free device. ``report`` is called after each batch.

    Raises:
        TargetError: a shape does not fit the address space or the VTCM; nothing is tuned then.
        DeviceError: no device can be had any more; what was measured is in the log.
        TuningError: the log is damaged or another process writes it.
    """
    for shape in shapes:
        check_address_space(*shape)
        fit_vtcm(*shape, rule_tiling(*shape), target.vtcm_bytes)
    with log.tuning() as database, tempfile.TemporaryDirectory(prefix="mllm-tune-") as folder:
        runner = DeviceRunner(target, open_session, settings.devices)
        builder = HexagonBuilder(target, Path(folder), settings.devices)
        try:
            parts = _Parts(database, builder, runner, cost_model(_WARMUP_TRIALS))
            for shape in dict.fromkeys(map(canonical, shapes)):
                _tune_shape(shape, target, log, parts, settings, report)
        finally:
            builder.close()
            runner.close()


@dataclass(frozen=True)
class _Parts:
    database: ms.database.Database
    builder: HexagonBuilder
    runner: DeviceRunner
    model: ms.cost_model.XGBModel


def _tune_shape(
    shape: Shape,
    target: HexagonTarget,
    log: TuningLog,
    parts: _Parts,
    settings: TuneSettings,
    report: Report,
) -> None:
    records = log.records(shape)
    context = tune_context(shape, target, settings.seed + len(records))
    keep = _KeepFinished(shape, parts, [r.run_secs[0].value for r in records], report)
    if len(records) >= settings.trials:
        keep.tell()
        return
    _learn(parts.model, context, records)
    try:
        if settings.start_from_rule and not records:
            keep.measure_rule(context)
        _search(context, parts, keep, settings, log.folder)
    except Exception:
        if parts.runner.lost is None:
            raise
    if parts.runner.lost is not None:
        raise DeviceError(
            f"tuning stopped at {shape}: {parts.runner.lost}. "
            f"{len(keep.costs)} finished trials of this shape are in {log.folder}; the same command goes on"
        )


def _search(
    context: ms.TuneContext, parts: _Parts, keep: _KeepFinished, settings: TuneSettings, folder: Path
) -> None:
    ms.tune_tasks(
        tasks=[context],
        task_weights=[1.0],
        work_dir=str(folder),
        max_trials_global=settings.trials - len(keep.costs),
        num_trials_per_iter=settings.batch,
        builder=parts.builder,
        runner=parts.runner,
        database=parts.database,
        cost_model=parts.model,
        measure_callbacks=[keep, ms.measure_callback.UpdateCostModel()],
        task_scheduler="round-robin",
    )


def _learn(
    model: ms.cost_model.XGBModel, context: ms.TuneContext, records: list[ms.database.TuningRecord]
) -> None:
    """Teaches the cost model what earlier runs measured."""
    if records:
        candidates = [record.as_measure_candidate() for record in records]
        results = [ms.runner.RunnerResult(record.run_secs, None) for record in records]
        model.update(context, candidates, results)


@derived_object
class _KeepFinished(ms.measure_callback.PyMeasureCallback):
    """Writes finished trials to the database after each batch, reports, and stops when no device is left."""

    def __init__(self, shape: Shape, parts: _Parts, seconds: list[float], report: Report) -> None:
        super().__init__()
        self.shape, self.parts, self.report = shape, parts, report
        self.costs = [value * PACKETS_PER_SECOND for value in seconds]
        self.failed = 0
        self.start = time.monotonic()

    def apply(
        self,
        task_scheduler: ms.task_scheduler.TaskScheduler,
        task_id: int,
        measure_candidates: list[ms.MeasureCandidate],
        builder_results: list[ms.builder.BuilderResult],
        runner_results: list[ms.runner.RunnerResult],
    ) -> None:
        """Called by the task scheduler after each batch."""
        context = task_scheduler.tasks_[task_id].ctx
        for candidate, result in zip(measure_candidates, runner_results, strict=True):
            if result.error_msg is None and result.run_secs:
                self._commit(context, candidate, result)
            else:
                self.failed += 1
                logging.getLogger(_LOGGER).debug("%s: %s", self.shape, result.error_msg)
        self.tell()
        if self.parts.runner.lost is not None:
            raise self.parts.runner.lost

    def measure_rule(self, context: ms.TuneContext) -> None:
        """Measures the rule's tiling."""
        sch = rule_schedule(self.shape)
        arguments = ms.arg_info.ArgInfo.from_entry_func(sch.mod, remove_preproc=False)
        (built,) = self.parts.builder.build([ms.builder.BuilderInput(sch.mod, context.target)])
        if built.error_msg is None:
            entry = ms.runner.RunnerInput(built.artifact_path, context.target.kind.name, arguments)
            result = self.parts.runner.run([entry])[0].result()
            if result.error_msg is None:
                self._commit(context, ms.MeasureCandidate(sch, arguments), result)
        if self.parts.runner.lost is not None:
            raise self.parts.runner.lost

    def tell(self) -> None:
        """Reports the best so far."""
        best = min(self.costs, default=float("inf"))
        share = self.parts.runner.floor(self.shape) / best
        elapsed = time.monotonic() - self.start
        self.report(Progress(self.shape, len(self.costs), self.failed, best, share, elapsed))

    def _commit(
        self, context: ms.TuneContext, candidate: ms.MeasureCandidate, result: ms.runner.RunnerResult
    ) -> None:
        workload = self.parts.database.commit_workload(context.mod)
        record = ms.database.TuningRecord(
            candidate.sch.trace, workload, result.run_secs, context.target, candidate.args_info
        )
        self.parts.database.commit_tuning_record(record)
        self.costs.append(float(result.run_secs[0]) * PACKETS_PER_SECOND)
