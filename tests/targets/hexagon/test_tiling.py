"""Tilings: loops, the memory model, and what does not fit a target."""

from __future__ import annotations

import pytest

from targets.errors import TargetError
from targets.hexagon.target import hexagon_target
from targets.hexagon.tiling import (
    ADDRESS_SPACE,
    Tiling,
    check_address_space,
    fit_vtcm,
    rule_tiling,
    split_evenly,
    traffic,
)

V65 = hexagon_target("qcom/hexagon-v65").vtcm_bytes


@pytest.mark.parametrize("total", [1, 7, 48, 64])
@pytest.mark.parametrize("size", [1, 5, 48, 64])
def test_panels_cover_each_row_once_in_order(total: int, size: int) -> None:
    runs = split_evenly(total, size)
    rows = [i for run in runs for i in range(run.start, run.start + run.repeats * run.size)]
    assert rows == list(range(total))
    assert all(run.size <= size for run in runs)


def test_traffic_of_one_panel_is_each_tensor_once() -> None:
    moved = traffic(64, 512, 256, Tiling(4, 2, 16))
    assert moved.memory == 64 * 512 + 512 * 256 + 4 * 64 * 256
    # Four groups of two blocks re-read x, sixteen groups of four rows re-read w.
    assert moved.vtcm == 4 * 64 * 512 + 16 * 512 * 256 + 4 * 64 * 256


def test_each_context_has_windows_of_its_own() -> None:
    tiling = Tiling(4, 2, 16)
    one, four = (traffic(64, 512, 256, tiling, contexts) for contexts in (1, 4))
    assert four.resident - one.resident == 3 * (one.resident - 64 * 512)
    room = one.resident
    assert fit_vtcm(64, 512, 256, tiling, room).panel == 0
    assert 0 < fit_vtcm(64, 512, 256, tiling, room, contexts=4).panel < 64


def test_each_panel_reads_the_weights_again() -> None:
    whole, panels = (traffic(64, 512, 256, Tiling(4, 2, 16, panel)) for panel in (0, 24))
    assert panels.memory - whole.memory == 2 * 512 * 256
    assert whole.resident - panels.resident == (64 - 24) * 512


def test_a_tiling_that_fits_the_vtcm_stays() -> None:
    tiling = rule_tiling(64, 512, 512)
    assert fit_vtcm(64, 512, 512, tiling, V65) == tiling


@pytest.mark.parametrize(("m", "k"), [(256, 2048), (64, 11008), (7, 60000)])
def test_a_panel_is_the_largest_that_fits(m: int, k: int) -> None:
    tiling = fit_vtcm(m, k, 512, rule_tiling(m, k, 512), V65)
    assert tiling.panel % tiling.rows == 0
    assert traffic(m, k, 512, tiling).resident <= V65
    larger = Tiling(tiling.rows, tiling.blocks, tiling.unroll, tiling.panel + tiling.rows)
    assert traffic(m, k, 512, larger).resident > V65


def test_rows_that_do_not_fit_the_vtcm_are_refused() -> None:
    with pytest.raises(TargetError, match=rf"K=100000.*4 rows.*{V65}.*more VTCM or split K"):
        fit_vtcm(16, 100_000, 64, rule_tiling(16, 100_000, 64), V65)


def test_tensors_that_do_not_fit_32_bits_are_refused_by_how_much() -> None:
    k, n = 1 << 16, 1 << 16
    excess = 4 * k + k * n + 16 * n - ADDRESS_SPACE
    with pytest.raises(TargetError, match=rf"{excess} more than .*32-bit"):
        check_address_space(4, k, n)
    check_address_space(256, 14336, 4096)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 256])
@pytest.mark.parametrize("n", [32, 64, 2048])
def test_a_rule_needs_no_more_rows_or_columns_than_there_are(m: int, n: int) -> None:
    tiling = rule_tiling(m, 512, n)
    assert tiling.rows <= m
    assert tiling.rows * tiling.blocks <= 8
    assert m >= 4 or tiling.blocks <= n // 32
