"""A plan from search to artifact to engine: everything it says is applied."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import mllm_tvm as mt
from mllm_tvm.build import CompileSettings, make_recipe
from mllm_tvm.cli import main
from tests.mllm_tvm.frontend.tiny_models import save_llama

TEXT = "Once upon a time there was a small dog who ran to the old tree. " * 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned")
    save_llama(path / "model", intermediate_size=128)
    (path / "text.txt").write_text(TEXT)
    assert main(["simulate", "--search", "--prompts", "32:1,90:1", "--plan", str(path / "plan.json")]) == 0
    return path


def edited_plan(tiny: Path, **changes: object) -> Path:
    data = json.loads((tiny / "plan.json").read_text())
    file = tiny / "edited.json"
    file.write_text(json.dumps({**data, **changes}))
    return file


def test_everything_a_plan_says_is_applied(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads((tiny / "plan.json").read_text())
    assert found["placement"]["mlp"] == "npu"
    lengths = found["chunk_lengths"][:1]  # each takes seconds to compile
    plan = edited_plan(tiny, pruned_share=1.0, policy="paper", chunk_lengths=lengths)
    out = tiny / "artifact"
    capsys.readouterr()
    arguments = ["--plan", str(plan), "--calibration", str(tiny / "text.txt"), "--json"]
    assert main(["compile", str(tiny / "model"), str(out), *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["chunk_lengths"], report["policy"]) == (lengths, "paper")
    artifact = mt.load_artifact(out)
    kinds = {function.kind for function in artifact.manifest.graph.functions}
    assert "mlp" in kinds
    assert "shadow" not in kinds
    with mt.Engine(artifact, "host") as engine:
        assert "".join(engine.generate("Once upon a time", 3)) is not None
        assert engine.stats.policy == "paper"
        assert set(engine.stats.chunk_lengths) <= set(lengths)
    with mt.Engine(artifact, "host", policy="in-order") as engine:
        assert engine.stats.policy == "in-order"


def test_a_share_of_the_linears_is_pruned(tiny: Path) -> None:
    model = mt.load_model(tiny / "model")
    settings = CompileSettings(calibration=str(tiny / "text.txt"), pruned_share=0.5)
    recipe = make_recipe(model, settings)
    linears = sum(len(linear.weights) for linear in recipe.linears)
    pruned = sum(len(linear.weights) for linear in recipe.linears if not linear.shadow)
    assert 0 < pruned <= round(0.5 * linears)
    saved = tiny / "recipe.json"
    recipe.save(saved)
    again = make_recipe(model, dataclasses.replace(settings, recipe=str(saved), pruned_share=1.0))
    assert not any(linear.shadow for linear in again.linears)


def test_a_plan_and_its_contrary(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(tiny / "plan.json")
    both = ["compile", str(tiny / "model"), str(tiny / "none"), "--plan", plan, "--no-fuse-mlp"]
    assert main(both) == 1
    assert "both --plan and --no-fuse-mlp were given" in capsys.readouterr().err
