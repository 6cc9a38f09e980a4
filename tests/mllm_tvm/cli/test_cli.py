"""The command line: what it prints, and one clear line for each kind of bad input."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from mllm_tvm.cli import main
from mllm_tvm.demo import MODEL_DIR

RUN_KEYS = {
    "text", "prompt_tokens", "generated_tokens", "device", "npu_calls", "npu_packets", "chunk_lengths",
    "policy",
    "ttft_s",
}  # fmt: skip


def _run(arguments, capsys):
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _error(arguments, capsys):
    code, out, err = _run(arguments, capsys)
    assert code == 1
    assert out == ""
    # Stages of a compilation may have been reported before; the error is the last line.
    assert err.splitlines()[-1].startswith("mllm-tvm: error: ")
    assert "Traceback" not in err
    return err


def test_run_json(demo_artifact, capsys):
    arguments = ["run", str(demo_artifact.path), "--device", "host", "--max-tokens", "5", "--json"]
    code, out, _ = _run(arguments, capsys)
    report = json.loads(out)
    assert code == 0
    assert report.keys() >= RUN_KEYS
    assert report["generated_tokens"] == 5
    assert report["text"].startswith("Once upon a time")
    assert report["npu_packets"] == 0


def test_prompt_from_a_file_or_the_input(demo_artifact, tmp_path, capsys, monkeypatch):
    file = tmp_path / "prompt.txt"
    prompt = "The fox\nand a friend"
    file.write_text(prompt + "\n")
    arguments = ["run", str(demo_artifact.path), "--device", "host", "--max-tokens", "2", "--json"]
    texts = [_run([*arguments, *p], capsys)[1] for p in (["--prompt", prompt], ["--prompt-file", str(file)])]
    with file.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        texts.append(_run([*arguments, "--prompt-file", "-"], capsys)[1])
    found = [json.loads(text)["text"] for text in texts]
    assert found[0] == found[1] == found[2]
    assert found[0].startswith(prompt)
    file.write_bytes(b"\xff")
    assert "prompt.txt as UTF-8" in _error([*arguments, "--prompt-file", str(file)], capsys)


def test_run_on_qemu_counts_packets(demo_artifact, capsys, require_device):
    require_device("qemu")
    prompt = "Once upon a time there was a fox who lived by the river with a friend"
    arguments = ["run", "--model", str(demo_artifact.path), "--prompt", prompt, "--max-tokens", "2", "--json"]
    first, second = (json.loads(_run(arguments, capsys)[1]) for _ in range(2))
    assert first["device"] == "qemu"
    assert first["npu_packets"] > 10_000
    assert first["npu_packets"] == second["npu_packets"]


def test_run_streams_text(demo_artifact, capsys):
    code, out, err = _run(["run", str(demo_artifact.path), "--device", "host", "--max-tokens", "5"], capsys)
    assert code == 0
    assert out.startswith("Once upon a time")
    assert "NPU calls" in err


def test_compile_dumps_the_ir_after_each_pass(demo_artifact, tmp_path, capsys):
    recipe = str(demo_artifact.path / "recipe.json")
    arguments = ["compile", str(MODEL_DIR), str(tmp_path / "out"), "--recipe", recipe]
    arguments += ["--chunk-lengths", "16", "--dump-ir", str(tmp_path / "ir"), "--json"]
    code, out, _ = _run(arguments, capsys)
    assert code == 0
    assert json.loads(out)["chunk_lengths"] == [16]
    dumped = sorted(path.name for path in (tmp_path / "ir").iterdir())
    assert dumped == [
        "00-analyse-CheckTokenAxis.py",
        "01-quantize-QuantizeW8A8.py",
        "02-quantize-DeadCodeElimination.py",
        "03-fuse-CanonicalizeBindings.py",
        "04-fuse-FuseMlp.py",
        "05-lower-LowerLinear.py",
        "06-lower-CanonicalizeBindings.py",
        "07-partition-Partition.py",
        "08-place-Place.py",
    ]
    assert "def linear_" in (tmp_path / "ir" / dumped[-1]).read_text()
    # The same recipe gives the same weights, byte for byte.
    files = sorted(path.name for path in demo_artifact.path.glob("*.safetensors"))
    assert {"weights.safetensors", "float.safetensors"} <= set(files)
    for name in files:
        assert (tmp_path / "out" / name).read_bytes() == (demo_artifact.path / name).read_bytes()


def test_doctor(capsys, require_device):
    require_device("qemu")
    code, out, _ = _run(["doctor", "--json"], capsys)
    report = json.loads(out)
    assert code == 0, report
    assert {check["name"] for check in report["checks"]} >= {"packages", "device qemu", "device host"}


def test_doctor_without_qemu(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    code, out, _ = _run(["doctor"], capsys)
    assert code == 1
    assert "FAIL emulator: qemu-hexagon" in out


@pytest.mark.parametrize(
    "arguments", [["run", "/nonexistent"], ["compile", "/nonexistent", "/tmp/never-made"]]
)
def test_missing_model(arguments, capsys):
    assert "/nonexistent" in _error(arguments, capsys)
    assert not Path("/tmp/never-made").exists()


def test_unknown_architecture(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    err = _error(["compile", str(tmp_path), str(tmp_path / "out")], capsys)
    assert "bert" in err
    assert "llama" in err
    assert not (tmp_path / "out").exists()


def test_failed_compilation_leaves_nothing(demo_artifact, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mllm_tvm.compiler.link_server", _no_linker)
    recipe = str(demo_artifact.path / "recipe.json")
    _error(["compile", str(MODEL_DIR), str(tmp_path / "out"), "--recipe", recipe], capsys)
    assert list(tmp_path.iterdir()) == []


def _no_linker(*_):
    from mllm_tvm.errors import ToolchainError

    raise ToolchainError("zig cc failed")


def test_recipe_of_another_model(demo_artifact, tmp_path, capsys):
    recipe = json.loads((demo_artifact.path / "recipe.json").read_text())
    recipe["model_hash"] = "0" * 64
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    arguments = ["compile", str(MODEL_DIR), str(tmp_path / "out"), "--recipe", str(tmp_path / "recipe.json")]
    assert "the recipe is for a model with hash 000000000000" in _error(arguments, capsys)


def test_damaged_artifact(demo_artifact, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(demo_artifact.path, copy)
    file = copy / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    err = _error(["run", str(copy)], capsys)
    assert "weights.safetensors" in err
    assert "compile" in err


def test_newer_artifact(demo_artifact, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(demo_artifact.path, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["schema_version"] += 1
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "newer" in _error(["run", str(copy)], capsys)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--device", "gpu"], "gpu"),
        (["--policy", "fastest"], "fastest"),
        (["--chunk-lengths", "48"], "48"),
        (["--temperature", "-1"], "temperature"),
        (["--prompt", "word " * 2000], "context"),
    ],
)
def test_bad_run_settings(demo_artifact, capsys, flags, expected):
    assert expected in _error(["run", str(demo_artifact.path), "--device", "host", *flags], capsys)


def test_no_qemu(demo_artifact, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "qemu-user" in _error(["run", str(demo_artifact.path), "--device", "qemu"], capsys)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(["--target", "qcom/hexagon-v1"], "qcom/hexagon-v68"), (["--chunk-lengths", "1"], "2 to 4096 rows")],
)
def test_bad_compile_settings_show_before_any_work(tmp_path, capsys, flags, expected):
    err = _error(["compile", str(MODEL_DIR), str(tmp_path / "out"), *flags], capsys)
    assert expected in err
    assert len(err.splitlines()) == 1


def test_output_that_is_something_else_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("precious")
    err = _error(["compile", str(MODEL_DIR), str(tmp_path)], capsys)
    assert "is not an artifact" in err
    assert len(err.splitlines()) == 1


def test_usage_error_exits_with_two():
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--chunk-lengths", "many"])


def test_without_a_command_the_help_is_shown(capsys):
    code, out, err = _run([], capsys)
    assert (code, out) == (2, "")
    assert "doctor" in err


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.split() == ["mllm-tvm", version("mllm-tvm")]


def test_help_is_quick_and_needs_no_tvm():
    code = """
import sys
from mllm_tvm.cli import main
try:
    main(["run", "--help"])
finally:
    print("tvm" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--prompt" in result.stdout
    assert result.stdout.strip().endswith("False")
