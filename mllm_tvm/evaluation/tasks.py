"""Evaluation tasks ``KIND:FILE`` and how an item is scored from logits.

| kind | file | score |
|---|---|---|
| ``perplexity`` | text (see ``read_texts``) | log likelihood of every token but the first |
| ``lambada`` | JSON lines with ``text`` | is the last word the greedy continuation of the others? |
| ``choice`` | JSON lines with ``good`` and ``bad``, or ``prompt``, ``choices`` and ``answer`` (an index) | is the right text the likelier one? |
"""  # noqa: E501

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mllm_tvm.calibration import SEGMENT_TOKENS, read_texts, segment_tokens
from mllm_tvm.errors import CalibrationError, EvaluationError
from mllm_tvm.tokenizer import Tokenizer

Forward = Callable[[Sequence[int]], np.ndarray]
"""Token ids -> logits [seq, vocab] float32."""


@dataclass(frozen=True)
class Item:
    """A thing to score: texts of token ids, and where in each the scored tokens begin.

    ``answer`` is the index of the right text of a choice; ``size`` the bytes of the scored text.
    """

    texts: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    answer: int = 0
    size: int = 0


@dataclass(frozen=True)
class Task:
    """A list of items and its kind."""

    name: str
    kind: str
    items: list[Item]


@dataclass(frozen=True)
class Score:
    """An item's result: ``loss`` (nats) over ``tokens`` tokens and ``bytes`` of text, or if it is right."""

    loss: float = 0.0
    tokens: int = 0
    bytes: int = 0
    correct: bool = False


@dataclass(frozen=True)
class Limits:
    """How much of a file is used: at most ``items``.

    ``text_start`` is what the texts of a file without separators begin with; ``beginnings``: of each text
    only the first segment (256 tokens).
    """

    items: int | None = None
    text_start: str | None = None
    beginnings: bool = False


def read_task(name: str, tokenizer: Tokenizer, max_positions: int, limits: Limits) -> Task:
    """The task ``KIND:FILE``.

    Raises EvaluationError: an unknown kind, a file that cannot be read, an item with a missing or wrong
    field, or nothing to measure.
    """
    kind, separator, file = name.partition(":")
    if kind not in _READERS or not separator or not file:
        raise EvaluationError(f"task {name!r}: expected KIND:FILE with a kind of {', '.join(_READERS)}")
    items = _READERS[kind](Path(file), tokenizer, max_positions, limits)[: limits.items]
    if not items:
        raise EvaluationError(f"{file} has nothing to measure: expected at least a few words")
    return Task(name, kind, items)


def score(kind: str, item: Item, forward: Forward) -> Score:
    """The score of one item of a task of this kind."""
    return _SCORERS[kind](item, forward)


def log_likelihoods(logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Log probability of each token after the first: logits [seq, vocab], ids [seq] -> [seq - 1] float64."""
    rows = logits[:-1].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    normalizer = np.log(np.exp(rows).sum(axis=1))
    return rows[np.arange(len(rows)), np.asarray(ids[1:])] - normalizer


def _perplexity_items(file: Path, tokenizer: Tokenizer, max_positions: int, limits: Limits) -> list[Item]:
    try:
        texts = read_texts(file, limits.text_start)
    except CalibrationError as error:
        raise EvaluationError(str(error)) from None
    length = min(SEGMENT_TOKENS, max_positions)
    if limits.beginnings:
        segments = [tokenizer.encode(text)[:length] for text in texts]
    else:
        segments = segment_tokens(tokenizer, texts, length, sys.maxsize)
    sizes = [len(tokenizer.decode(ids[1:]).encode()) for ids in segments]
    found = zip(segments, sizes, strict=True)
    return [Item((tuple(ids),), (1,), size=size) for ids, size in found if len(ids) > 1 and size]


def _lambada_items(file: Path, tokenizer: Tokenizer, max_positions: int, limits: Limits) -> list[Item]:
    items = []
    for number, line in enumerate(_json_lines(file)[: limits.items], 1):
        text = _field(file, number, line, "text", str).rstrip()
        context, _, word = text.rpartition(" ")
        if not context.strip() or not word:
            raise EvaluationError(f"{file}, line {number}: text {text!r}: expected at least two words")
        items.append(_continuations(tokenizer, context, [" " + word], 0, max_positions))
    return items


def _choice_items(file: Path, tokenizer: Tokenizer, max_positions: int, limits: Limits) -> list[Item]:
    items = []
    for number, line in enumerate(_json_lines(file)[: limits.items], 1):
        if "prompt" in line:
            prompt = _field(file, number, line, "prompt", str)
            choices = _field(file, number, line, "choices", list)
            answer = _field(file, number, line, "answer", int)
            if (
                len(choices) < 2
                or not all(isinstance(c, str) for c in choices)
                or not 0 <= answer < len(choices)
            ):
                raise EvaluationError(
                    f"{file}, line {number}: expected two or more choices and an answer's index"
                )
            items.append(_continuations(tokenizer, prompt, choices, answer, max_positions))
        else:
            texts = [_field(file, number, line, name, str) for name in ("good", "bad")]
            items.append(_continuations(tokenizer, "", texts, 0, max_positions))
    return items


def _continuations(
    tokenizer: Tokenizer, context: str, endings: Sequence[str], answer: int, max_positions: int
) -> Item:
    """Texts that begin with ``context``; tokens that differ from those of the context alone are scored."""
    before = tokenizer.encode(context)
    texts, starts = [], []
    for ending in endings:
        ids = tokenizer.encode(context + ending)
        same = next((i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), len(before))
        start = max(1, min(same, len(ids) - 1))
        # Of a text that is too long the end counts; BOS stays.
        cut = max(0, len(ids) - max_positions)
        texts.append((*ids[:1], *ids[1 + cut :]))
        starts.append(max(1, start - cut))
    return Item(tuple(texts), tuple(starts), answer)


def _json_lines(file: Path) -> list[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"cannot read {file} as UTF-8 text: {error}") from None
    return [_json_line(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _json_line(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise EvaluationError(f"{file}, line {number}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise EvaluationError(f"{file}, line {number}: expected a JSON object, found {line[:60]!r}")
    return content


def _field(file: Path, number: int, line: dict[str, Any], name: str, kind: type) -> Any:
    value = line.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) or value in ("", []):
        raise EvaluationError(
            f"{file}, line {number}: field {name!r}: expected {kind.__name__}, found {value!r}; "
            f"the line has {sorted(line)}"
        )
    return value


def _score_perplexity(item: Item, forward: Forward) -> Score:
    (ids,) = item.texts
    return Score(-float(log_likelihoods(forward(ids), ids).sum()), len(ids) - 1, item.size)


def _score_last_word(item: Item, forward: Forward) -> Score:
    (ids,), (start,) = item.texts, item.starts
    greedy = forward(ids)[start - 1 : -1].argmax(axis=1)
    return Score(correct=bool((greedy == np.asarray(ids[start:])).all()))


def _score_choice(item: Item, forward: Forward) -> Score:
    likelihoods = [
        float(log_likelihoods(forward(ids), ids)[start - 1 :].sum())
        for ids, start in zip(item.texts, item.starts, strict=True)
    ]
    return Score(correct=int(np.argmax(likelihoods)) == item.answer)


_READERS: dict[str, Callable[[Path, Tokenizer, int, Limits], list[Item]]] = {
    "perplexity": _perplexity_items,
    "lambada": _lambada_items,
    "choice": _choice_items,
}
_SCORERS: dict[str, Callable[[Item, Forward], Score]] = {
    "perplexity": _score_perplexity,
    "lambada": _score_last_word,
    "choice": _score_choice,
}
