"""``mllm-tvm calibrate`` and ``mllm-tvm eval`` on a tiny model, from end to end, and their bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mllm_tvm.cli import main
from mllm_tvm.recipe import Recipe
from tests.mllm_tvm.frontend.onnx.fused_graphs import write_opset23
from tests.mllm_tvm.frontend.tiny_models import save_llama

REQUIRED = ["task", "scheme", "perplexity", "bits_per_byte", "accuracy", "n", "ci95"]
CHOICES = [
    {"good": "the cat sat on the mat", "bad": "mat the on sat cat the"},
    {"prompt": "the cat sat on", "choices": [" the mat", " dog the", " and"], "answer": 0},
]
STORY = "the cat sat on the mat and the dog sat on the cat, "


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model as a directory, an ONNX file and an artifact, its recipe, and texts."""
    root = tmp_path_factory.mktemp("commands")
    found = SimpleNamespace(
        model=save_llama(root / "llama", num_hidden_layers=1),
        text=root / "text.txt",
        choices=root / "choices.jsonl",
        recipe=root / "recipe.json",
        artifact=root / "artifact",
        calibrated=["--calibration", str(root / "text.txt"), "--chunk-lengths", "16"],
    )
    found.text.write_text(STORY * 12)
    found.choices.write_text("\n".join(map(json.dumps, CHOICES)))
    main(["calibrate", str(found.model), str(found.recipe), *found.calibrated[:2], "--hot-share", "0.1"])
    main(["compile", str(found.model), str(found.artifact), "--recipe", str(found.recipe), *found.calibrated])
    return found


def _lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def _results(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in _lines([*arguments, "--json"], capsys)]


def test_calibrate_draws_the_trade_off_and_prunes(
    files: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "recipe.json"
    arguments = ["calibrate", str(files.model), str(output), *files.calibrated[:2]]
    table = _lines([*arguments, "--tune-pruning", "--max-increase", "10"], capsys)
    assert table[0].split() == ["share", "pruned", "perplexity", "increase", "divergence"]
    assert [line.split()[0] for line in table[1:-1]][:2] == ["0.00", "0.20"]
    (chosen,) = [line for line in table if line.endswith("<- chosen")]
    assert chosen.startswith("  1.00")
    assert not any(linear.shadow for linear in Recipe.load(output).linears)

    (report,) = _results([*arguments, "--prune", "0.5", "--importance", "largest-outlier"], capsys)
    assert 0 < report["pruned"] <= report["linears"] / 2 + 0.5
    assert report["pruned"] == sum(
        len(linear.weights) for linear in Recipe.load(output).linears if not linear.shadow
    )


def test_eval_of_a_directory(files: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = f"perplexity:{files.text},choice:{files.choices}"
    arguments = ["eval", str(files.model), "--tasks", tasks, "--schemes", "float,ours", *files.calibrated]
    results = _results([*arguments, "--recipe", str(files.recipe)], capsys)
    assert [(r["scheme"], r["task"].partition(":")[0]) for r in results] == [
        ("float", "perplexity"), ("float", "choice"), ("ours", "perplexity"), ("ours", "choice"),
    ]  # fmt: skip
    assert all(list(r)[: len(REQUIRED)] == REQUIRED for r in results)
    float_text, float_choice, text, choice = results
    assert float_text["accuracy"] is None
    assert float_choice["perplexity"] is None
    assert (choice["n"], text["n"]) == (2, float_text["n"])
    ratio = text["perplexity"] / float_text["perplexity"] - 1
    assert text["differences"]["float"][0] == pytest.approx(ratio)
    assert abs(ratio) < 0.05
    assert text["shadow"]["hits"] + text["shadow"]["misses"] == text["shadow"]["rows_read"]
    assert float_text["shadow"] is None


@pytest.mark.parametrize("device", ["host", "qemu"])
def test_eval_of_an_artifact(
    files: SimpleNamespace, device: str, capsys: pytest.CaptureFixture[str], require_device
) -> None:
    require_device(device)
    arguments = ["eval", str(files.artifact), "--tasks", f"choice:{files.choices}", "--device", device]
    (result,) = _results([*arguments, "--schemes", "all"], capsys)
    assert (result["scheme"], result["n"]) == ("ours", 2)
    assert result["accuracy"] in (0, 0.5, 1)
    assert main([*arguments, "--schemes", "naive"]) == 1
    assert "artifact of scheme ours" in capsys.readouterr().err


def test_eval_of_an_onnx_file(
    files: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights by another road: the same perplexity."""
    written = write_opset23(files.model, tmp_path / "onnx", flat=False)
    file = written if written.is_file() else written / "model.onnx"
    arguments = ["--tasks", f"perplexity:{files.text}", "--schemes", "float"]
    (onnx,) = _results(["eval", str(file), *arguments], capsys)
    (directory,) = _results(["eval", str(files.model), *arguments], capsys)
    assert onnx["perplexity"] == pytest.approx(directory["perplexity"], rel=1e-4)


def test_eval_layers_prints_the_worst_first(
    files: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", str(files.model), "--tasks", f"perplexity:{files.text}", "--schemes", "ours"]
    reports = _results([*arguments, "--layers", "--recipe", str(files.recipe), *files.calibrated], capsys)
    ratios = [report["signal_to_noise"] for report in reports]
    assert ratios == sorted(ratios)
    assert len(reports) == sum(len(linear.weights) for linear in Recipe.load(files.recipe).linears)
    assert all(report["worst_positions"] and report["remedy"] for report in reports)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"good": "a cat"}', ["line 1", "field 'bad'", "['good']"]),
        ('{"prompt": "a", "choices": ["b"], "answer": 0}', ["two or more choices"]),
        ("[1]", ["expected a JSON object"]),
    ],
)
def test_task_files_with_something_missing(
    line: str, words: list[str], files: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tasks.jsonl").write_text(line)
    _refuses(["eval", str(files.model), "--tasks", f"choice:{tmp_path / 'tasks.jsonl'}"], words, capsys)


@pytest.mark.parametrize("content", ["", "the cat"])
def test_too_little_calibration_text(
    content: str, files: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, output = tmp_path / "text.txt", tmp_path / "recipe.json"
    text.write_text(content)
    words = ["the calibration text has", "expected at least 16"]
    _refuses(["calibrate", str(files.model), str(output), "--calibration", str(text)], words, capsys)
    assert not output.exists()


def test_a_text_shorter_than_a_chunk_is_enough(
    files: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, output = tmp_path / "text.txt", tmp_path / "recipe.json"
    text.write_text(STORY * 2)
    (report,) = _results(["calibrate", str(files.model), str(output), "--calibration", str(text)], capsys)
    assert 16 <= report["tokens"] < 64


def test_a_recipe_of_another_model(
    files: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_llama(tmp_path / "other", initializer_range=0.1)
    arguments = ["--tasks", f"perplexity:{files.text}", "--schemes", "ours", "--recipe", str(files.recipe)]
    _refuses(["eval", str(other), *arguments], ["the recipe is for a model with hash"], capsys)


def test_unknown_names(files: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"perplexity:{files.text}"
    _refuses(
        ["eval", str(files.model), "--tasks", text, "--schemes", "int4"], ["expected all or some"], capsys
    )
    _refuses(["eval", str(files.model), "--tasks", "spelling:x"], ["KIND:FILE"], capsys)
    shutil.copy(files.recipe, tmp_path / "recipe.json")
    arguments = ["calibrate", str(files.model), str(tmp_path / "recipe.json"), *files.calibrated[:2]]
    _refuses([*arguments, "--scheme", "int4"], ["scheme 'int4': expected one of"], capsys)
    _refuses([*arguments, "--hot-share", "2"], ["hot share is 2.0"], capsys)


def _refuses(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("mllm-tvm: error: ")
    assert all(word in last for word in words)
