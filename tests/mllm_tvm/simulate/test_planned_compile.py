"""A plan from search to artifact to engine: everything it says is applied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mllm_tvm as mt
from mllm_tvm.build import CompileSettings, make_recipe
from mllm_tvm.cli import main
from mllm_tvm.recipe import Recipe
from tests.mllm_tvm.frontend.tiny_models import save_llama

TEXT = "Once upon a time there was a small dog who ran to the old tree. " * 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned")
    save_llama(path / "model", intermediate_size=128)
    (path / "text.txt").write_text(TEXT)
    assert main(["simulate", "--search", "--prompts", "32:1,90:1", "--plan", str(path / "plan.json")]) == 0
    return path


@pytest.fixture(scope="module")
def recipe(tiny: Path) -> Recipe:
    """Half of the linears are pruned; it is saved as recipe.json."""
    settings = CompileSettings(calibration=str(tiny / "text.txt"), pruned_share=0.5)
    made = make_recipe(mt.load_model(tiny / "model"), settings)
    made.save(tiny / "recipe.json")
    return made


def edited_plan(tiny: Path, **changes: object) -> Path:
    data = json.loads((tiny / "plan.json").read_text())
    file = tiny / "edited.json"
    file.write_text(json.dumps({**data, **changes}))
    return file


def test_everything_a_plan_says_is_applied(
    tiny: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any(linear.shadow for linear in recipe.linears)
    found = json.loads((tiny / "plan.json").read_text())
    assert found["placement"]["mlp"] == "npu"
    lengths = found["chunk_lengths"][:1]  # each takes seconds to compile
    plan = edited_plan(tiny, pruned_share=1.0, policy="paper", chunk_lengths=lengths)
    out = tiny / "artifact"
    capsys.readouterr()
    arguments = ["--plan", str(plan), "--recipe", str(tiny / "recipe.json"), "--json"]
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


def test_a_share_of_the_linears_is_pruned(tiny: Path, recipe: Recipe) -> None:
    linears = sum(len(linear.weights) for linear in recipe.linears)
    pruned = sum(len(linear.weights) for linear in recipe.linears if not linear.shadow)
    assert 0 < pruned <= round(0.5 * linears)
    settings = CompileSettings(recipe=str(tiny / "recipe.json"), pruned_share=1.0)
    again = make_recipe(mt.load_model(tiny / "model"), settings)
    assert not any(linear.shadow for linear in again.linears)


def test_a_plan_and_its_contrary(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(tiny / "plan.json")
    both = ["compile", str(tiny / "model"), str(tiny / "none"), "--plan", plan, "--no-fuse-mlp"]
    assert main(both) == 1
    assert "both --plan and --no-fuse-mlp were given" in capsys.readouterr().err
