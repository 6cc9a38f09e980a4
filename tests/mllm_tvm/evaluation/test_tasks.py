"""Reading and scoring tasks, intervals, and every bad input."""

import json
import math

import numpy as np
import pytest

from mllm_tvm.errors import EvaluationError
from mllm_tvm.evaluation.intervals import ratio
from mllm_tvm.evaluation.tasks import Limits, log_likelihoods, read_task, score
from mllm_tvm.tokenizer import Tokenizer
from tests.mllm_tvm.frontend.tiny_models import byte_level_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(byte_level_tokenizer(), 1, (2,))


def _write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def _read(kind, path, tokenizer, limits=None, positions=256):
    return read_task(f"{kind}:{path}", tokenizer, positions, limits or Limits())


class _Oracle:
    """Logits that expect, after each prefix of known texts, their next token."""

    def __init__(self, texts, vocabulary=400):
        self.texts, self.vocabulary = [tuple(text) for text in texts], vocabulary

    def __call__(self, ids):
        logits = np.zeros((len(ids), self.vocabulary), np.float32)
        for position in range(len(ids)):
            prefix = tuple(ids[: position + 1])
            for text in self.texts:
                if text[: len(prefix)] == prefix and len(text) > len(prefix):
                    logits[position, text[len(prefix)]] = 5
        return logits


def test_log_likelihoods():
    logits = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.log([probabilities[0, 3], probabilities[1, 6], probabilities[2, 0]])
    np.testing.assert_allclose(log_likelihoods(logits, [2, 3, 6, 0]), expected, rtol=1e-6)


def test_perplexity_of_uniform_predictions(tokenizer, tmp_path):
    task = _read("perplexity", _write(tmp_path / "t.txt", "the cat sat on the mat"), tokenizer)
    found = score("perplexity", task.items[0], lambda ids: np.zeros((len(ids), 400), np.float32))
    assert found.loss / found.tokens == pytest.approx(math.log(400))
    assert found.bytes == len("the cat sat on the mat")


def test_beginnings_of_texts(tokenizer, tmp_path):
    path = _write(tmp_path / "t.txt", "Once " + "the cat sat " * 40, "", "Once the dog")
    every = _read("perplexity", path, tokenizer, Limits(text_start="Once"), 32).items
    first = _read("perplexity", path, tokenizer, Limits(text_start="Once", beginnings=True), 32).items
    assert len(first) == 2 < len(every)
    assert first[0] == every[0]


def test_last_word(tokenizer, tmp_path):
    text = "the cat sat on the mat"
    task = _read("lambada", _write(tmp_path / "l.jsonl", {"text": text}), tokenizer)
    right, wrong = tokenizer.encode(text), tokenizer.encode("the cat sat on the dog")
    assert score("lambada", task.items[0], _Oracle([right])).correct
    assert not score("lambada", task.items[0], _Oracle([wrong])).correct


def test_a_long_context_keeps_bos_and_its_end(tokenizer, tmp_path):
    text = "the cat sat on the mat and " * 30 + "dog"
    (item,) = _read("lambada", _write(tmp_path / "l.jsonl", {"text": text}), tokenizer, positions=24).items
    full = tokenizer.encode(text)
    assert item.texts[0] == (full[0], *full[-23:])
    assert tokenizer.decode(item.texts[0][item.starts[0] :]).strip() == "dog"


def test_choices(tokenizer, tmp_path):
    lines = [{"good": "the cat sat", "bad": "the mat sat"}]
    lines += [{"prompt": "the cat", "choices": [" and", " sat"], "answer": 1}]
    task = _read("choice", _write(tmp_path / "c.jsonl", *lines), tokenizer)
    oracle = _Oracle([tokenizer.encode("the cat sat")])
    assert [score("choice", item, oracle).correct for item in task.items] == [True, True]
    oracle = _Oracle([tokenizer.encode("the mat sat"), tokenizer.encode("the cat and")])
    assert not score("choice", task.items[1], oracle).correct


@pytest.mark.parametrize(
    ("kind", "line", "words"),
    [
        ("lambada", {"txt": "a b"}, "line 1: field 'text'"),
        ("lambada", {"text": 3}, "expected str, found 3"),
        ("lambada", {"text": "word"}, "at least two words"),
        ("lambada", "{", "line 1: not JSON"),
        ("lambada", "[]", "expected a JSON object"),
        ("choice", {"good": "a"}, "field 'bad'"),
        ("choice", {"prompt": "a", "answer": 0}, "field 'choices'"),
        ("choice", {"prompt": "a", "choices": ["b", "c"], "answer": 2}, "an answer's index"),
        ("choice", {"prompt": "a", "choices": ["b"], "answer": 0}, "two or more choices"),
    ],
)
def test_a_wrong_item_names_its_line(kind, line, words, tokenizer, tmp_path):
    with pytest.raises(EvaluationError, match=words):
        _read(kind, _write(tmp_path / "t.jsonl", line), tokenizer)


@pytest.mark.parametrize("task", ["perplexity", "perplexity:", "accuracy:t.txt", ":t.txt"])
def test_a_wrong_task(task, tokenizer):
    with pytest.raises(EvaluationError, match="expected KIND:FILE"):
        read_task(task, tokenizer, 256, Limits())


@pytest.mark.parametrize("kind", ["perplexity", "lambada", "choice"])
def test_files_that_are_empty_or_missing(kind, tokenizer, tmp_path):
    (tmp_path / "t").write_text("")
    with pytest.raises(EvaluationError, match="nothing to measure"):
        _read(kind, tmp_path / "t", tokenizer)
    with pytest.raises(EvaluationError, match="absent"):
        _read(kind, tmp_path / "absent", tokenizer)


def test_ratio_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        sizes = rng.integers(5, 50, 80).astype(np.float64)
        estimate = ratio(2 * sizes + rng.normal(0, 3, 80) * np.sqrt(sizes), sizes)
        hits += estimate.low <= 2 <= estimate.high
    assert 0.9 < hits / 300 < 0.985
    assert ratio(np.array([6.0]), np.array([2.0])).low == 3
