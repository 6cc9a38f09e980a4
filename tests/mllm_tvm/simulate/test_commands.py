"""The commands simulate and profile."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mllm_tvm.cli import main
from mllm_tvm.simulate.configuration import PAPER
from mllm_tvm.simulate.models import MODELS
from mllm_tvm.simulate.prefill import simulate_prefill
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
    assert 0 <= data["bubble"] < 0.01
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
    table, assumptions = out.split("\nenergy model:\n")
    assert "draws 1 W, its NPU another 3.86 W" in assumptions
    rows = table.splitlines()[2:]
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
    _, out, _ = run(capsys, "--ablation", "--levers", "--prompt", "64")
    assert [line.split()[0] for line in out.split("ablation:\n")[1].splitlines()[:6]] == names
    assert out.count("  x ") == 8


def test_search_writes_a_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    search = ["--search", "--prompts", "32:1,96:2", "--plan", str(plan), "--chunk-lengths", "16,32,64,96"]
    code, out, _ = run(capsys, *search, "--json", "--policy", "in-order")
    found = json.loads(out)
    written = json.loads(plan.read_text())
    assert code == 0
    assert written["chunk_lengths"] == found["search"]["chunk_lengths"]
    assert written["policy"] == found["policy"] == "in-order"
    assert set(found["search"]["prefill_s"]) == {"32", "96"}
    assert found["search"]["prefill_s"]["96"] == found["prefill_s"]
    _, out, _ = run(capsys, *search)
    assert "search: chunk lengths" in out
    assert "prompt 32: " in out


def test_chunk_lengths_and_pruned_share(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--policy", "paper", "--chunk-lengths", "512", "--pruned-share", "0"]
    _, out, _ = run(capsys, *chosen, "--json")
    found = json.loads(out)
    configuration = replace(PAPER, chunk_lengths=(512,), pruned_share=0.0)
    expected = simulate_prefill(MODELS["qwen1.5-1.8b"], configuration, load_profile("snapdragon-8gen3"), 1024)
    assert (found["chunk_lengths"], found["prefill_s"]) == ([512, 512], expected.seconds)
    _, out, _ = run(capsys, *chosen)
    assert "chunks 2 x 512" in out


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
        (["--plan", "plan.json"], "--plan is of the search: add --search"),
        (["--prompts", "64"], "--prompts is of the search: add --search"),
        (["--search", "--configuration", "cpu"], "--search finds a configuration"),
        (["--search", "--policy", "magic"], "unknown scheduling policy 'magic'"),
        (["--search", "--prompts", "64:nan"], "weights above 0"),
        (["--search", "--prompts", "8", "--plan", "/no/such/plan.json"], "cannot write /no/such/plan.json"),
        (["--configuration", "cpu", "--chunk-lengths", "64"], "configuration cpu runs a prompt whole"),
        (["--configuration", "cpu", "--pruned-share", "0.5"], "cpu has no shadow paths"),
        (["--pruned-share", "0.5,0.6"], "expected one share without --search"),
        (["--output", "-5"], "output has -5 tokens"),
        (["--prompt", "1000000"], "What fits: prompts of up to 55337 tokens"),
        (["--prompt", "9" * 20], "What fits: prompts of up to 55337 tokens"),
        (["--output", "9" * 11], "99999999999 output tokens needs"),
        (["--trace", ""], "names no file"),
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
    assert profile.npu.int8_macs_per_s == pytest.approx(shipped.npu.int8_macs_per_s, rel=0.01)
    assert profile.npu.chunk_efficiency == pytest.approx(shipped.npu.chunk_efficiency, abs=0.01)
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
