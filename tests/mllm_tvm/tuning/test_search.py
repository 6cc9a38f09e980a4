"""The design space and MetaSchedule's parts that know the kernel."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.s_tir import Schedule

from mllm_tvm.tuning.search import ChangeOneDecision, RejectUnrunnable, tiling_features
from mllm_tvm.tuning.workload import (
    Shape,
    canonical,
    fits_registers,
    is_short,
    sample_tiling,
    shape_of,
    tiling_of,
    workload,
)
from targets.hexagon.tiling import Tiling, split

VTCM = 4 << 20
SHAPES = [Shape(64, 512, 512), Shape(1, 64, 32), Shape(256, 2048, 8192), Shape(17, 172, 4096)]


def _schedule(shape: Shape, seed: int) -> Schedule:
    sch = Schedule(workload(shape), seed=seed)
    sample_tiling(sch)
    return sch


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_sampled_tiling_fits_the_shape(shape: Shape) -> None:
    for seed in range(1, 20):
        sch = _schedule(shape, seed)
        tiling = tiling_of(sch)
        assert shape_of(sch.mod) == shape
        assert tiling.rows <= shape.m
        assert tiling.blocks <= shape.n // 32


def test_a_trace_replayed_gives_the_same_tiling() -> None:
    sch = _schedule(SHAPES[0], 7)
    again = Schedule(workload(SHAPES[0]))
    sch.trace.apply_to_schedule(again, remove_postproc=False)
    assert tiling_of(again) == tiling_of(sch)


def test_what_spills_or_compiles_for_long_or_overflows_the_vtcm_is_rejected() -> None:
    rejected = 0
    postprocessor = RejectUnrunnable(VTCM)
    for seed in range(1, 60):
        sch = _schedule(SHAPES[0], seed)
        runs = fits_registers(tiling_of(sch)) and is_short(tiling_of(sch))
        assert postprocessor.apply(sch) == runs
        assert not RejectUnrunnable(1024).apply(sch)
        rejected += not runs
    assert 0 < rejected < 59


def test_registers_hold_accumulators_and_weights() -> None:
    assert fits_registers(Tiling(4, 6, 8))
    assert not fits_registers(Tiling(4, 8, 2))
    assert not fits_registers(Tiling(8, 4, 2))


def test_a_mutation_changes_one_number() -> None:
    shape = SHAPES[0]
    trace = _schedule(shape, 3).trace
    mutator = ChangeOneDecision(1)
    before = tiling_of(_schedule(shape, 3))
    seen = set()
    for _ in range(20):
        sch = Schedule(workload(shape))
        mutator.apply(trace).apply_to_schedule(sch, remove_postproc=False)
        after = tiling_of(sch)
        changed = [
            name for name in ("rows", "blocks", "unroll") if getattr(after, name) != getattr(before, name)
        ]
        assert len(changed) == 1
        seen.add(changed[0])
    assert seen == {"rows", "blocks", "unroll"}


def test_features_are_finite_and_tell_tilings_apart() -> None:
    tilings = [Tiling(4, 2, 16), Tiling(4, 2, 8), Tiling(2, 4, 16), Tiling(1, 1, 2)]
    for shape in SHAPES:
        rows = np.stack([tiling_features(shape, tiling) for tiling in tilings])
        assert np.isfinite(rows).all()
        assert len(np.unique(rows, axis=0)) == len(tilings)


@pytest.mark.parametrize("m", [1, 3, 16, 48, 49, 64, 100, 256, 300, 1024])
@pytest.mark.parametrize("n", [32, 96, 736, 800, 11008, 32000])
def test_the_tuned_shape_has_the_same_register_blocks(m: int, n: int) -> None:
    shape = Shape(m, 64, n)
    small = canonical(shape)
    assert canonical(small) == small
    assert small.m <= 72
    assert small.n <= 1536
    assert small.k == shape.k
    for size in (1, 2, 3, 4, 6, 8):
        assert _sizes(m, size) == _sizes(small.m, size)
        if size != 8 or m < 4:
            assert _sizes(n // 32, size) == _sizes(small.n // 32, size)


def _sizes(total: int, size: int) -> list[int]:
    return [run.size for run in split(total, size)]
