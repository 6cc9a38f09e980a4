"""The fitted profile against the paper: the fit is reproducible, and its errors are those the docs state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mllm_tvm.simulate import paper
from mllm_tvm.simulate.configuration import PAPER
from mllm_tvm.simulate.cost import CostModel, Work
from mllm_tvm.simulate.fit import FITTED, fit, fitted_values
from mllm_tvm.simulate.fit_report import fit_report
from mllm_tvm.simulate.models import MODELS
from mllm_tvm.simulate.prefill import simulate_prefill
from mllm_tvm.simulate.profile import DeviceProfile, load_profile
from mllm_tvm.simulate.residuals import (
    Residuals,
    mean_absolute,
    policy_bubble,
    residuals,
)


@pytest.fixture(scope="module")
def profile() -> DeviceProfile:
    return load_profile(paper.DEVICE)


@pytest.fixture(scope="module")
def found(profile: DeviceProfile) -> Residuals:
    return residuals(profile)


def test_the_shipped_profile_is_what_the_fit_gives(profile: DeviceProfile) -> None:
    assert len(FITTED) == 6
    npu = replace(profile.npu, bandwidth_bytes_per_s=1e9, launch_s=1e-2, float_s_per_element=1.0)
    cpu = replace(profile.cpu, int8_macs_per_s=1e9, float_macs_per_s=1e9, setup_s_per_channel=1.0)
    blank = replace(profile, npu=npu, cpu=cpu)
    assert fitted_values(fit(blank)) == pytest.approx(fitted_values(profile))


def test_matmuls_of_table_3(found: Residuals) -> None:
    assert max(abs(error) for error in found.matmuls) < 0.15


def test_prefill_cells(found: Residuals) -> None:
    assert len(found.prefills) == 10
    assert found.prefill_error <= 0.20
    assert found.consistent_prefill_error <= 0.12
    assert found.unfitted_prefill_error <= 0.20


def test_contradicted_cells_are_faster_than_shorter_prompts() -> None:
    """Why no model fits them: the paper's own speeds of the same model at no more tokens take longer."""
    cells = {(c.model, c.data): c for c in paper.PREFILLS}
    seconds = {tokens: tokens / speed for tokens, speed in paper.GEMMA_SPEEDS.items()}
    seconds[paper.ABLATION_PROMPT] = paper.ABLATION_PROMPT / paper.ABLATION["gemma-2b"][-1]
    for key in paper.CONTRADICTED:
        cell = cells[key]
        shorter = [
            s for tokens, s in seconds.items() if tokens < cell.shortest + (cell.longest - cell.shortest) / 2
        ]
        assert max(shorter) > cell.seconds


def test_ablation_order(found: Residuals) -> None:
    for model, printed in paper.ABLATION.items():
        simulated = found.ablation[model]
        assert sorted(range(5), key=simulated.__getitem__) == sorted(range(5), key=printed.__getitem__), model


def test_ablation_steps(found: Residuals) -> None:
    assert sum(len(found.step_errors(model)) for model in found.ablation) == 12
    assert found.step_error <= 0.25


def test_float_products_of_table_3(profile: DeviceProfile) -> None:
    """32 and 64 rows take as long: the pace is one of the second operand's elements."""
    for row in paper.MATMULS:
        keys = Work(context_elements=row.k)
        seconds = CostModel(profile).seconds(keys, "npu", row.m, row.n - (row.m - 1) / 2)
        assert seconds == pytest.approx(row.npu_fp16_ms / 1e3, rel=0.15)


def test_graph_builds(profile: DeviceProfile) -> None:
    """One figure gives both printed times."""
    for name, seconds in paper.GRAPH_BUILD_S.items():
        model = MODELS[name]
        build = profile.npu.build_s_per_squared_weight * model.layers * model.layer_weights**2
        assert build == pytest.approx(seconds, rel=0.15)


def test_bubbles(profile: DeviceProfile) -> None:
    bubbles = {policy: policy_bubble(profile, policy) for policy in ("in-order", "paper", "ours")}
    assert bubbles["in-order"] == pytest.approx(0.37, abs=0.01)
    assert bubbles["paper"] < 0.05
    assert bubbles["ours"] < 0.01


def test_synchronization_without_pruning(profile: DeviceProfile) -> None:
    """Not fitted: the share of the latency that shadows in every layer cost against shadows in none."""
    model = MODELS["qwen1.5-1.8b"]
    set_up = replace(PAPER, sets_up=False)
    none = simulate_prefill(model, replace(set_up, pruned_share=1.0), profile, 1024).seconds
    every = simulate_prefill(model, replace(set_up, pruned_share=0.0), profile, 1024).seconds
    assert 1 - none / every == pytest.approx(paper.UNPRUNED_SYNCHRONIZATION, abs=0.12)


def test_cells_that_nothing_was_fitted_on(found: Residuals) -> None:
    """The rest of Table 5: the system's prefills, llama.cpp's, and decode."""
    assert (len(found.further), len(found.llama_cpp), len(found.decodes)) == (15, 25, 25)
    assert mean_absolute(found.further.values()) <= 0.20
    assert mean_absolute(found.llama_cpp.values()) <= 0.15
    assert mean_absolute(found.decodes.values()) <= 0.25


def test_report_names_every_cell(profile: DeviceProfile, found: Residuals) -> None:
    text = fit_report(profile, found, fitted_values(profile), fitted_values(profile))
    assert all(f"{cell.model:13} {cell.data:13}" in text for cell in paper.PREFILLS)
    assert all(data in text for data in paper.LENGTHS)
    assert "cpu.setup_s_per_channel" in text
