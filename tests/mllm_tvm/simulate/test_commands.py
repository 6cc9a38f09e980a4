"""The commands simulate and profile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm_tvm.cli import main
from mllm_tvm.simulate.models import MODELS
from mllm_tvm.simulate.profile import DeviceProfile, load_profile
from targets.hexagon.farm import Farm


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["simulate", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_has_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys,
        "--model",
        "qwen1.5-1.8b",
        "--profile",
        "snapdragon-8gen3",
        "--prompt",
        "1024",
        "--policy",
        "ours",
        "--json",
    )
    data = json.loads(out)
    assert code == 0
    assert data["tokens_per_s"] == pytest.approx(1024 / data["prefill_s"])
    assert 0 <= data["bubble"] < 0.02
    assert data["lower_bound_s"] <= data["prefill_s"] <= 1.03 * data["lower_bound_s"]
    assert data["energy_j"] > 0
    assert data["peak_memory_bytes"] > 1e9
    assert data["energy_assumptions"]


def test_all_models_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    """As each alone; a model that the device cannot hold has the reason."""
    _, out, _ = run(capsys, "--model", "all", "--prompt", "64", "--profile", "qemu-hvx", "--json")
    models = {found["model"]: found for found in json.loads(out)["models"]}
    assert list(models) == list(MODELS)
    _, alone, _ = run(capsys, "--model", "phi-2", "--prompt", "64", "--profile", "qemu-hvx", "--json")
    assert models["phi-2"]["prefill_s"] == json.loads(alone)["prefill_s"]
    assert "GB too much" in models["llama-2-7b"]["error"]
    code, out, _ = run(capsys, "--model", "all", "--prompt", "64")
    rows = out.splitlines()[2:]
    assert code == 0
    assert [row.split()[0] for row in rows] == list(MODELS)
    assert all(len(row.split()) >= 9 for row in rows)


def test_policy_of_the_paper_means_its_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--policy", "in-order", "--json")
    data = json.loads(out)
    assert (data["configuration"], data["policy"]) == ("paper", "in-order")
    assert data["bubble"] == pytest.approx(0.37, abs=0.01)


def test_ablation_and_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace, report = tmp_path / "trace.json", tmp_path / "report.html"
    files = ["--trace", str(trace), "--report", str(report)]
    _, out, _ = run(capsys, "--ablation", "--levers", "--prompt", "512", "--json", *files)
    data = json.loads(out)
    names = [step["configuration"] for step in data["ablation"]]
    assert names == ["cpu", "naive-npu", "chunk-sharing", "shadow-outliers", "paper", "ours"]
    assert len(data["levers"]) == 8
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    assert max(event["ts"] + event["dur"] for event in events) == pytest.approx(data["prefill_s"] * 1e6)
    assert 'id="ablation"' in report.read_text()


def test_search_writes_a_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    code, out, _ = run(capsys, "--search", "--prompts", "32:1,96:2", "--plan", str(plan))
    assert code == 0
    assert "search: chunk lengths" in out
    assert json.loads(plan.read_text())["chunk_lengths"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "gpt-5"], "unknown model 'gpt-5'"),
        (["--policy", "magic"], "unknown scheduling policy 'magic'"),
        (["--profile", "phone"], "unknown device profile 'phone'"),
        (["--configuration", "best"], "unknown configuration 'best'"),
        (["--prompt", "0"], "prompt has 0 tokens"),
        (["--model", "all", "--prompt", "0"], "prompt has 0 tokens"),
        (["--model", "all", "--trace", "trace.json"], "--trace is of one model"),
        (["--model", "llama-2-7b", "--profile", "qemu-hvx"], "too much. What fits: 16 of its 32 layers"),
        (["--trace", "/no/such/folder/trace.json"], "cannot write /no/such/folder/trace.json"),
    ],
)
def test_errors(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1


def measured(device: str, folder: Path) -> DeviceProfile:
    file = folder / "mine.toml"
    assert main(["profile", "device", "--device", device, "--to", str(file)]) == 0
    return load_profile(str(file))


def test_profile_of_the_simulated_device(farm: tuple[str, Farm], tmp_path: Path) -> None:
    """The profile that ships is what the simulated device measures, here or behind a tracker."""
    profile, remote, shipped = (
        measured("qemu", tmp_path),
        measured(farm[0], tmp_path),
        load_profile("qemu-hvx"),
    )
    assert profile.npu.int8_macs_per_s == pytest.approx(shipped.npu.int8_macs_per_s, rel=0.03)
    assert profile.npu.chunk_efficiency["1"] == pytest.approx(shipped.npu.chunk_efficiency["1"], abs=0.05)
    assert remote.name == farm[0]
    assert remote.npu == profile.npu


def test_profile_by_wall_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A device that counts no packets is timed; the measured profile simulates."""
    profile = measured("host", tmp_path)
    assert max(profile.npu.chunk_efficiency.values()) == 1.0
    assert profile.npu.bandwidth_bytes_per_s == profile.npu.dma_bytes_per_s > 0
    code, out, _ = run(capsys, "--profile", str(tmp_path / "mine.toml"), "--prompt", "64", "--json")
    assert code == 0
    assert json.loads(out[out.index("{") :])["profile"] == "host"


def test_profile_of_no_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "device", "--device", "phone", "--to", str(tmp_path / "mine.toml")]) == 1
    captured = capsys.readouterr()
    assert "phone" in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_compile_refuses_bad_plans(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert main(["simulate", "--search", "--prompts", "32", "--plan", str(plan)]) == 0
    both = ["compile", "model", str(tmp_path / "out"), "--plan", str(plan), "--chunk-lengths", "16"]
    assert main(both) == 1
    assert "both --plan and --chunk-lengths (16,) were given" in capsys.readouterr().err
    plan.write_text("{}")
    assert main(["compile", "model", str(tmp_path / "out"), "--plan", str(plan)]) == 1
    assert "has no 'schema_version'" in capsys.readouterr().err
    assert main(["run", "--device", "host", "--profile", "phone", str(tmp_path)]) == 1
