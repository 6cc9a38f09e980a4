"""The parts of MetaSchedule's search that know the kernel: postprocessor, mutator, features.

Search strategy (evolutionary), cost model (XGBoost) and database (JSON) are MetaSchedule's own.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence

import numpy as np
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule, Trace
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule import _ffi_api

from mllm_tvm.tuning.workload import (
    Shape,
    fits_registers,
    is_short,
    sample_tiling,
    shape_of,
    tiling_of,
    workload,
)
from targets.errors import TargetError
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import COLUMNS, Run, Tiling, choose_unroll, fit_vtcm, split, traffic


@derived_object
class RejectUnrunnable(ms.postproc.PyPostproc):
    """Rejects tilings that spill vector registers, compile for long or do not fit the target's VTCM."""

    def __init__(self, vtcm_bytes: int) -> None:
        super().__init__()
        self.vtcm_bytes = vtcm_bytes

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        pass

    def apply(self, sch: Schedule) -> bool:
        """Whether the kernel can run."""
        try:
            fit_vtcm(*shape_of(sch.mod), tiling_of(sch), self.vtcm_bytes)
        except TargetError:
            return False
        return fits_registers(tiling_of(sch)) and is_short(tiling_of(sch))

    def clone(self) -> ms.postproc.Postproc:
        """The same postprocessor."""
        return RejectUnrunnable(self.vtcm_bytes)


@derived_object
class ChangeOneDecision(ms.mutator.PyMutator):
    """Replaces one sampled number of the tiling by another."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        pass

    def apply(self, trace: Trace, _state: int) -> Trace | None:
        """A neighbour of ``trace``; None when it has nothing to change."""
        decisions = [
            (instruction, index, [i for i in range(len(instruction.attrs[0])) if i != int(index)])
            for instruction, index in trace.decisions.items()
        ]
        changeable = [(instruction, others) for instruction, _, others in decisions if others]
        if not changeable:
            return None
        instruction, others = self.random.choice(changeable)
        return trace.with_decision(instruction, self.random.choice(others), remove_postproc=True)

    def clone(self) -> ms.mutator.Mutator:
        """A mutator with a random stream of its own."""
        return ChangeOneDecision(self.random.getrandbits(31))


@derived_object
class TilingFeatures(ms.feature_extractor.PyFeatureExtractor):
    """One row of features for each candidate, see ``tiling_features``."""

    def extract_from(
        self, context: ms.TuneContext, candidates: list[ms.MeasureCandidate]
    ) -> list[tvm.runtime.Tensor]:
        """Features of ``candidates``, each [1, features] float32."""
        return [
            tvm.runtime.tensor(tiling_features(shape_of(c.sch.mod), tiling_of(c.sch))[None])
            for c in candidates
        ]


def tiling_features(shape: Shape, tiling: Tiling) -> np.ndarray:
    """What decides a kernel's packets, as float32: sizes, block form, loop form, rests, a rough estimate."""
    m, k, n = shape
    steps = k // 4
    unroll = choose_unroll(steps, tiling.unroll)
    row_runs, block_runs = split(m, tiling.rows), split(n // COLUMNS, tiling.blocks)
    estimate = _estimated_packets(row_runs, block_runs, steps, unroll)
    values = [
        *(math.log2(size) for size in shape),
        *(tiling.rows, tiling.blocks, tiling.unroll, unroll, steps // unroll, steps % unroll),
        tiling.rows * tiling.blocks,
        tiling.rows * tiling.blocks + tiling.blocks,
        tiling.rows * unroll,
        tiling.blocks * unroll,
        tiling.rows * tiling.blocks * unroll,
        len(row_runs),
        len(block_runs),
        _share_in_rest(row_runs) + _share_in_rest(block_runs),
        estimate / shape.macs * 256,
        traffic(m, k, n, tiling).vtcm / shape.macs,
    ]
    return np.asarray(values, np.float32)


def _estimated_packets(row_runs: Sequence[Run], block_runs: Sequence[Run], steps: int, unroll: int) -> float:
    """Packets bound by multiplications (two a packet), vector loads (one) and slots (four)."""
    packets = 0.0
    for _, row_count, rows in row_runs:
        for _, block_count, blocks in block_runs:
            step = max(rows * blocks / 2, blocks, (rows * blocks + rows + blocks) / 4)
            loop = (steps // unroll) * (1 if rows * blocks * unroll % 2 else 0.5)
            packets += row_count * block_count * (steps * step + loop + 2 * rows * blocks)
    return packets


def _share_in_rest(runs: Sequence[Run]) -> float:
    total = sum(run.repeats * run.size for run in runs)
    return 1 - runs[0].repeats * runs[0].size / total


def tune_context(shape: Shape, target: HexagonTarget, seed: int) -> ms.TuneContext:
    """MetaSchedule's task for one shape."""
    space = ms.space_generator.ScheduleFn(
        sample_tiling,
        sch_rules=[],
        postprocs=[RejectUnrunnable(target.vtcm_bytes)],
        mutator_probs={ChangeOneDecision(seed): 1.0},
    )
    strategy = ms.search_strategy.EvolutionarySearch(
        population_size=128, init_measured_ratio=0.2, init_min_unmeasured=16, max_fail_count=20
    )
    # One thread: the Python parts run one at a time anyway, and the search becomes reproducible.
    arguments = (workload(shape), target.llvm_target(), space, strategy, str(shape), 1, seed)
    return _quick_context(*arguments)


def _quick_context(*arguments: object) -> ms.TuneContext:
    """``ms.TuneContext(*arguments)``, whose ``__init__`` parses every CUDA intrinsic first: half a minute."""
    context = ms.TuneContext.__new__(ms.TuneContext)
    log = ms.logging.get_logging_func(logging.getLogger(__name__))
    context.__init_handle_by_constructor__(_ffi_api.TuneContext, *arguments, log)
    _ffi_api.TuneContextInitialize(context)
    return context


def cost_model(warmup: int) -> ms.cost_model.XGBModel:
    """XGBoost over tiling features; the first ``warmup`` candidates are picked at random."""
    # MetaSchedule retrains from scratch after each batch. It stops when the best of the training set rank
    # first, long before the others are in order: hence the many rounds.
    config = ms.cost_model.xgb_model.XGBConfig(max_depth=4, gamma=0.0, min_child_weight=0, eta=0.2, seed=43)
    return ms.cost_model.XGBModel(
        extractor=TilingFeatures(),
        config=config,
        num_warmup_samples=warmup,
        verbose_eval=0,
        early_stopping_rounds=80,
        num_tuning_cores=1,
        adaptive_training=False,
    )
