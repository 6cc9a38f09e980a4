"""The engine over NumPy functions and a fake device: text, limits, statistics and misuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from runtime_fakes import CHUNK_LENGTHS, CONTEXT, HIDDEN, VOCAB, FakeSession, make_graph, make_runner

from mllm_tvm.artifact import TOKENIZER_FILE, Artifact, load_artifact, write_artifact
from mllm_tvm.errors import ArtifactError, DeviceError, PromptError
from mllm_tvm.manifest import SCHEMA_VERSION, Manifest
from mllm_tvm.runtime import engine as engine_module
from mllm_tvm.runtime.engine import Engine
from mllm_tvm.runtime.runner import ModelRunner, RunnerConfig
from mllm_tvm.runtime.stats import RunStats
from mllm_tvm.runtime.tasks import ScheduleError
from mllm_tvm.sampling import SamplingConfig

EOS = 2
PROMPT = " ".join(f"w{i}" for i in (5, 9, 11, 30, 7, 8, 21, 44, 3))


def _write_tokenizer(directory: Path) -> None:
    words = {"<bos>": 1, "<eos>": EOS, "<unk>": 0} | {f"w{i}": i for i in range(3, VOCAB)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / TOKENIZER_FILE))


def _manifest(**model: object) -> Manifest:
    facts = {"vocab_size": VOCAB, "max_positions": CONTEXT, "hidden_size": HIDDEN}
    facts |= {"bos_token_id": 1, "eos_token_ids": [EOS], **model}
    return Manifest(
        SCHEMA_VERSION, facts, "qcom/hexagon-v68", "generic", CHUNK_LENGTHS, {}, make_graph(), {}, {}
    )


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return write_artifact(tmp_path / "artifact", _manifest(), _write_tokenizer)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    """The device of every engine the test opens."""
    session = FakeSession()

    def open_runner(_artifact: Artifact, _device: str, config: RunnerConfig) -> ModelRunner:
        return make_runner(session, config.policy, config.chunk_lengths)

    monkeypatch.setattr(engine_module, "_open_runner", open_runner)
    return session


@pytest.fixture
def engine(artifact: Artifact, session: FakeSession) -> Iterator[Engine]:
    """Short chunks only: a prompt has several."""
    with Engine(artifact, "host", chunk_lengths=(4,)) as engine:
        yield engine


def _greedy(engine: Engine, tokens: int) -> list[int]:
    """The expected ids, by one full forward pass for each token."""
    ids = engine.tokenizer.encode(PROMPT)
    start = len(ids)
    while len(ids) < start + tokens:
        ids.append(int(np.argmax(engine.forward(ids)[-1])))
    return ids[start:]


def test_text_is_what_repeated_forward_passes_give(engine: Engine) -> None:
    expected = _greedy(engine, 12)
    assert EOS not in expected
    pieces = list(engine.generate(PROMPT, 12))
    assert len(pieces) == 12
    assert "".join(pieces).split() == [f"w{i}" for i in expected]


def test_stats(engine: Engine, session: FakeSession) -> None:
    assert engine.stats == RunStats("host", "ours")
    reported: list[RunStats] = []
    list(engine.generate(PROMPT, 6, on_stats=reported.append))
    stats = engine.stats
    assert reported == [stats]
    assert (stats.prompt_tokens, stats.generated_tokens) == (10, 6)
    assert stats.chunk_lengths == (4, 4, 4)
    assert stats.npu_calls == len(session.calls) == 9
    assert (stats.npu_packets, stats.npu_instructions, stats.npu_hvx) == (90, 180, 45)
    assert 0 < stats.prefill_s <= stats.ttft_s
    assert stats.decode_s > 0
    assert sum(span.task.processor == "npu" for span in stats.timeline) == 9
    assert stats.scheduling.decisions == len(stats.timeline)
    assert 0 < stats.scheduling.seconds < stats.prefill_s


def test_policy_and_chunk_lengths_do_not_change_text(artifact: Artifact, session: FakeSession) -> None:
    texts = set()
    for policy in ("sequential", "in-order", "paper"):
        for lengths in (None, [16], (4,)):
            with Engine(artifact.path, "host", policy, lengths) as engine:
                texts.add("".join(engine.generate(PROMPT, 8)))
                assert set(engine.stats.chunk_lengths) <= set(lengths or CHUNK_LENGTHS)
                assert engine.stats.policy == policy
    assert len(texts) == 1


def test_sampling_is_reproducible(engine: Engine) -> None:
    def text(seed: int) -> str:
        return "".join(engine.generate(PROMPT, 10, SamplingConfig(temperature=2.0, seed=seed)))

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def test_stops_at_eos(engine: Engine) -> None:
    expected = _greedy(engine, 5)
    engine.tokenizer.eos_ids = (expected[3],)
    stop = expected.index(expected[3])
    assert len(list(engine.generate(PROMPT, 10))) == stop
    assert engine.stats.generated_tokens == stop


def test_stops_at_the_end_of_the_context(engine: Engine) -> None:
    """The last position holds a token, and the token after it can still be predicted."""
    engine.tokenizer.eos_ids = ()
    list(engine.generate(PROMPT, 1000))
    assert engine.stats.generated_tokens == CONTEXT - engine.stats.prompt_tokens + 1


def test_prompt_as_long_as_the_context(engine: Engine) -> None:
    engine.tokenizer.eos_ids = ()
    assert len(list(engine.generate("w5 " * (CONTEXT - 1), 10))) == 1
    with pytest.raises(PromptError, match=f"the prompt has {CONTEXT + 1} tokens, the context {CONTEXT}"):
        engine.generate("w5 " * CONTEXT, 10)


def test_token_level_calls_agree(engine: Engine) -> None:
    ids = engine.tokenizer.encode(PROMPT)
    every = engine.forward(ids)
    assert every.shape == (len(ids), VOCAB)
    np.testing.assert_array_equal(engine.prefill(ids[:-2]), every[-3], strict=True)
    np.testing.assert_array_equal(engine.decode(ids[-2]), every[-2], strict=True)
    np.testing.assert_array_equal(engine.decode(ids[-1]), every[-1], strict=True)


def test_bad_prompts(engine: Engine) -> None:
    with pytest.raises(PromptError, match="max_tokens is 0: expected at least 1"):
        engine.generate(PROMPT, 0)
    with pytest.raises(PromptError, match=f"token id {VOCAB} is out of range: expected 0 to {VOCAB - 1}"):
        engine.forward([1, VOCAB])
    with pytest.raises(PromptError, match="token id -1"):
        engine.decode(-1)
    with pytest.raises(PromptError, match="0 tokens"):
        engine.prefill([])


@pytest.mark.parametrize("lengths", [(8,), (16, 8), ()])
def test_chunk_lengths_that_were_not_compiled(
    artifact: Artifact, session: FakeSession, lengths: tuple[int, ...]
) -> None:
    with pytest.raises(ScheduleError, match=r"chunk lengths .* compiled for, \(16, 4\)"):
        Engine(artifact, "host", chunk_lengths=lengths)


def test_unknown_policy(artifact: Artifact, session: FakeSession) -> None:
    with pytest.raises(ScheduleError, match="unknown scheduling policy 'fifo'"):
        Engine(artifact, "host", "fifo")


def test_a_second_run_ends_the_first(engine: Engine) -> None:
    first = engine.generate(PROMPT, 10)
    next(first)
    engine.prefill([1, 2, 3])
    with pytest.raises(PromptError, match="another run was started"):
        list(first)


def test_abandoned_generation_reports_its_stats(engine: Engine) -> None:
    reported: list[RunStats] = []
    pieces = engine.generate(PROMPT, 10, on_stats=reported.append)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert [stats.generated_tokens for stats in reported] == [1]


def test_closed_engine(artifact: Artifact, session: FakeSession) -> None:
    engine = Engine(artifact, "host")
    engine.close()
    engine.close()
    assert session.closed
    with pytest.raises(PromptError, match="the engine is closed"):
        engine.prefill([1])


def test_dropped_engine_is_closed(artifact: Artifact, session: FakeSession) -> None:
    threads = threading.active_count()
    engine = Engine(artifact, "host")
    list(engine.generate(PROMPT, 2))
    del engine
    assert session.closed
    assert threading.active_count() == threads


def test_engine_open_at_exit_is_closed(tmp_path: Path) -> None:
    """In an interpreter of its own: the lanes end before exit handlers run."""
    script = tmp_path / "script.py"
    script.write_text(
        # Registered before anything that makes a finalizer, so that it runs behind all of them.
        "import atexit\n"
        "atexit.register(lambda: print('closed', session.closed))\n"
        "from runtime_fakes import FakeSession, make_runner\n"
        "import weakref\n"
        "session = FakeSession()\n"
        "class Owner: pass\n"
        "owner, runner = Owner(), make_runner(session)\n"
        "weakref.finalize(owner, runner.close)\n"
        "runner.prefill([1, 2, 3, 4, 5])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (result.stdout, result.stderr, result.returncode) == ("closed True\n", "", 0)


def test_device_death_while_generating(engine: Engine, session: FakeSession) -> None:
    session.dies_at = 5
    with pytest.raises(DeviceError, match="the device died"):
        list(engine.generate(PROMPT, 5))
    with pytest.raises(DeviceError, match="open a new engine"):
        list(engine.generate(PROMPT, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": None}, r"model\.vocab_size is None, expected int"),
        ({"eos_token_ids": 2}, "eos 2"),
        ({"bos_token_id": "1"}, "bos '1'"),
    ],
)
def test_manifest_without_model_facts(
    tmp_path: Path, session: FakeSession, change: dict[str, object], message: str
) -> None:
    path = write_artifact(tmp_path / "artifact", _manifest(**change), _write_tokenizer).path
    with pytest.raises(ArtifactError, match=message):
        Engine(path, "host")


def test_artifact_without_libraries(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"no file 'cpu\.so'"):
        Engine(artifact, "host")


def test_artifact_for_another_cpu(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads((artifact.path / "manifest.json").read_text()) | {"host_cpu": "sapphirerapids"}
    (artifact.path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr("mllm_tvm.runtime.host_cpu.llvm_get_system_cpu", lambda: "skylake")
    with pytest.raises(ArtifactError, match=r"compiled for the CPU sapphirerapids.*skylake lacks .*avx512f"):
        Engine(load_artifact(artifact.path), "host")
    same = replace(artifact, manifest=replace(artifact.manifest, host_cpu="skylake"))
    with pytest.raises(ArtifactError, match=r"no file 'cpu\.so'"):
        Engine(same, "host")
