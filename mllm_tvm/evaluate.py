"""Evaluates models: in float, and with each quantization scheme as the compiled engine runs it."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mllm_tvm.artifact import Artifact, load_artifact
from mllm_tvm.build import CompileSettings, calibration_texts
from mllm_tvm.calibration import SEGMENT_TOKENS, Calibration, read_texts, segment_tokens
from mllm_tvm.compiler import compile
from mllm_tvm.errors import EvaluationError
from mllm_tvm.evaluation.intervals import Estimate, ratio
from mllm_tvm.evaluation.layers import LayerReport, compare_layers
from mllm_tvm.evaluation.tasks import Forward, Item, Limits, Score, Task, read_task, score
from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.frontend.model import Model
from mllm_tvm.manifest import MANIFEST_NAME
from mllm_tvm.progress import progress
from mllm_tvm.quantization.pruning import PruningMeter, default_measure, prune
from mllm_tvm.quantization.rotation import rotate
from mllm_tvm.quantization.schemes import (
    FLOAT,
    OURS,
    OURS_PRUNED,
    PAPER,
    PRUNED_SHARE,
    SCHEMES,
    SchemeSettings,
)
from mllm_tvm.recipe import Recipe
from mllm_tvm.runtime.engine import Engine
from mllm_tvm.runtime.shadow_memory import shadow_memory
from mllm_tvm.tokenizer import Tokenizer

ALL_SCHEMES = (FLOAT, *SCHEMES)
_PRUNED = (PAPER, OURS_PRUNED)


@dataclass(frozen=True)
class EvaluationSettings:
    """Where and how models run: ``compile`` also says what text schemes are calibrated on."""

    device: str = "host"
    compile: CompileSettings = field(default_factory=CompileSettings)
    limits: Limits = field(default_factory=Limits)
    scheme: SchemeSettings = field(default_factory=SchemeSettings)


def evaluate(
    model: str, tasks: Sequence[str], schemes: Sequence[str], settings: EvaluationSettings
) -> Iterator[dict[str, object]]:
    """Measures each task (``KIND:FILE``, see ``evaluation.tasks``) with each scheme.

    ``model`` is a model of ``load_model``, or an artifact, which is measured as it is. Schemes are named in
    ``ALL_SCHEMES``; ``float`` is the imported module, every other is compiled and run by the engine on
    ``settings.device``. Yields one dict for each scheme and task: ``task``, ``scheme``, ``perplexity`` and
    ``bits_per_byte`` (or None), ``accuracy`` (or None), ``n`` (predicted tokens, or items), ``ci95`` of the
    perplexity or accuracy; ``difference`` and ``difference_ci95`` to ``float`` on the same items when it was
    measured before (relative for perplexity, in points of 1 for accuracy); and ``shadow`` with the memory and
    misses of the shadow path since its engine was opened.

    Raises:
        EvaluationError: an unknown task or scheme, or a file with nothing to measure or a missing field.
    """
    source = _Artifact(model) if (Path(model) / MANIFEST_NAME).is_file() else _Schemes(model, settings)
    chosen = source.check(schemes)
    read = [read_task(task, source.tokenizer, source.max_positions, settings.limits) for task in tasks]
    exact: dict[str, list[Score]] = {}
    for scheme in chosen:
        with source.open(scheme, settings.device) as run:
            for task in read:
                scores = _measure(task, run.forward, scheme)
                if scheme == FLOAT:
                    exact[task.name] = scores
                yield _report(task, scheme, scores, exact.get(task.name), run)


def layer_reports(
    model: str, tasks: str, scheme: str, settings: EvaluationSettings, segments: int
) -> list[LayerReport]:
    """Every linear of a scheme against float, worst first, on the first ``segments`` of a perplexity task.

    Raises EvaluationError for another task, an artifact (its float model is needed) or an unknown scheme.
    """
    if (Path(model) / MANIFEST_NAME).is_file():
        raise EvaluationError(f"{model} is an artifact: give the model it was made from")
    source = _Schemes(model, settings)
    if source.check([scheme]) == [FLOAT]:
        raise EvaluationError("scheme float has no quantized linears: expected another scheme")
    task = read_task(tasks, source.tokenizer, source.max_positions, settings.limits)
    if task.kind != "perplexity":
        raise EvaluationError(f"task {tasks!r}: linears are compared on a perplexity task")
    recipe = source.recipe(scheme)
    loaded = rotate(source.model) if recipe.rotated else source.model
    return compare_layers(loaded, recipe, [item.texts[0] for item in task.items[:segments]])


@dataclass(frozen=True)
class Run:
    """A scheme that is ready to run: ``forward`` maps token ids to logits [seq, vocab] float32."""

    forward: Forward
    artifact: Artifact | None = None

    def shadow(self) -> dict[str, object] | None:
        """Memory and misses of the shadow path, if the scheme has one with hot rows."""
        memory = shadow_memory(self.artifact) if self.artifact else None
        if memory is None or not memory.rows:
            return None
        return {
            "resident_bytes": memory.resident_bytes,
            "resident_share": round(memory.resident_share, 6),
            "hits": memory.hits,
            "misses": memory.misses,
            "hot_share": round(memory.hot_share, 4),
            "outlier_share": round(memory.outlier_share, 6),
            "linears": len(memory.rows),
        }


class _Schemes:
    """Every scheme of a float model, calibrated and compiled when asked for."""

    def __init__(self, path: str, settings: EvaluationSettings):
        self.model = load_model(Path(path))
        self.settings = settings
        self.tokenizer: Tokenizer = self.model.tokenizer
        self.max_positions = self.model.config.max_positions
        self._calibrations: dict[bool, Calibration] = {}

    def check(self, schemes: Sequence[str]) -> list[str]:
        """The schemes, ``all`` spelled out; raises EvaluationError for an unknown one."""
        chosen = list(ALL_SCHEMES) if list(schemes) == ["all"] else list(schemes)
        unknown = [scheme for scheme in chosen if scheme not in ALL_SCHEMES]
        if unknown or not chosen:
            raise EvaluationError(
                f"scheme {unknown[:1] or ''}: expected all or some of {', '.join(ALL_SCHEMES)}"
            )
        return chosen

    @contextmanager
    def open(self, scheme: str, device: str) -> Iterator[Run]:
        """The scheme as a forward function."""
        if scheme == FLOAT:
            yield Run(float_forward(self.model))
            return
        recipe = self.recipe(scheme)
        model = rotate(self.model) if recipe.rotated else self.model
        with tempfile.TemporaryDirectory() as scratch:
            settings = self.settings.compile
            compiled = compile(model, recipe, settings.target, settings.chunk_lengths)
            artifact = compiled.save(Path(scratch) / "artifact")
            with Engine(artifact, device) as engine:
                yield Run(engine.forward, artifact)

    def recipe(self, scheme: str) -> Recipe:
        """The scheme's recipe: from the settings' file for ``ours``, otherwise calibrated."""
        file = self.settings.compile.recipe
        if file is not None and scheme == OURS:
            return Recipe.load(file)
        calibration = self._calibration(SCHEMES[scheme].rotated)
        recipe = calibration.recipe(scheme, self.settings.scheme)
        if scheme not in _PRUNED:
            return recipe
        measure = default_measure(scheme)
        if scheme == OURS_PRUNED:
            recipe = PruningMeter(calibration, recipe).importance()
        return prune(recipe, PRUNED_SHARE, measure)

    def _calibration(self, rotated: bool) -> Calibration:
        if rotated not in self._calibrations:
            model = rotate(self.model) if rotated else self.model
            texts = calibration_texts(self.settings.compile)
            self._calibrations[rotated] = Calibration.collect(model, texts)
        return self._calibrations[rotated]


class _Artifact:
    """An artifact, as the one scheme it was compiled with."""

    def __init__(self, path: str):
        self.artifact = load_artifact(path)
        engine = Engine(self.artifact, "host")
        self.tokenizer, self.max_positions = engine.tokenizer, engine.max_positions
        engine.close()

    def check(self, schemes: Sequence[str]) -> list[str]:
        """The artifact's scheme; raises EvaluationError when another one is asked for."""
        own = str(self.artifact.manifest.quantization["scheme"])
        wrong = [scheme for scheme in schemes if scheme not in (own, "all")]
        if wrong:
            raise EvaluationError(
                f"{self.artifact.path} is an artifact of scheme {own}: cannot measure {wrong[0]!r}; "
                "give the model it was made from"
            )
        return [own]

    @contextmanager
    def open(self, _scheme: str, device: str) -> Iterator[Run]:
        """The artifact's engine as a forward function."""
        with Engine(self.artifact, device) as engine:
            yield Run(engine.forward, self.artifact)


def float_forward(model: Model) -> Forward:
    """Token ids -> logits [seq, vocab] float32 of the imported module, in float."""
    compiled = FloatModel(model)
    return lambda ids: compiled.run(ids)[0]


def read_segments(tokenizer: Tokenizer, path: str | Path, text_start: str | None = None) -> list[list[int]]:
    """A text file as token ids in segments of at most 256, each with BOS first."""
    return segment_tokens(tokenizer, read_texts(path, text_start), SEGMENT_TOKENS, sys.maxsize)


def perplexity(
    forward: Callable[[Sequence[int]], np.ndarray], tokenizer: Tokenizer, segments: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Perplexity of segments of token ids, BOS first; every token but the first is predicted.

    ``forward``: token ids -> logits [seq, vocab] float32. Raises EvaluationError when nothing is predicted.
    """
    items = [
        Item((tuple(ids),), (1,), size=len(tokenizer.decode(ids[1:]).encode()))
        for ids in segments
        if len(ids) > 1
    ]
    if not items:
        raise EvaluationError("the text has no tokens to predict: expected at least a few words")
    scores = _measure(Task("perplexity", "perplexity", items), forward, "")
    loss, count = sum(s.loss for s in scores), sum(s.tokens for s in scores)
    size = sum(s.bytes for s in scores)
    return {"perplexity": math.exp(loss / count), "bits_per_byte": loss / math.log(2) / size, "n": count}


def _measure(task: Task, forward: Forward, scheme: str) -> list[Score]:
    scores = []
    with progress(len(task.items), f"{scheme} {task.kind}".strip(), unit="item") as bar:
        for item in task.items:
            scores.append(score(task.kind, item, forward))
            bar.update()
    return scores


def _report(
    task: Task, scheme: str, scores: list[Score], exact: list[Score] | None, run: Run
) -> dict[str, object]:
    measured = _perplexity_report if task.kind == "perplexity" else _accuracy_report
    return {"task": task.name, "scheme": scheme, **measured(scores, exact), "shadow": run.shadow()}


def _perplexity_report(scores: list[Score], exact: list[Score] | None) -> dict[str, object]:
    losses, tokens = (np.array([getattr(s, name) for s in scores], np.float64) for name in ("loss", "tokens"))
    loss = ratio(losses, tokens)
    report: dict[str, object] = {
        "perplexity": math.exp(loss.value),
        "bits_per_byte": float(losses.sum()) / math.log(2) / sum(s.bytes for s in scores),
        "accuracy": None,
        "n": int(tokens.sum()),
        "ci95": [math.exp(loss.low), math.exp(loss.high)],
    }
    if exact is not None:
        change = ratio(losses - np.array([s.loss for s in exact]), tokens)
        report |= _difference(Estimate(*(math.expm1(v) for v in (change.value, change.low, change.high))))
    return report


def _accuracy_report(scores: list[Score], exact: list[Score] | None) -> dict[str, object]:
    right, ones = np.array([s.correct for s in scores], np.float64), np.ones(len(scores))
    accuracy = ratio(right, ones)
    report: dict[str, object] = {
        "perplexity": None,
        "bits_per_byte": None,
        "accuracy": accuracy.value,
        "n": len(scores),
        "ci95": [max(0.0, accuracy.low), min(1.0, accuracy.high)],
    }
    if exact is not None:
        report |= _difference(ratio(right - np.array([s.correct for s in exact], np.float64), ones))
    return report


def _difference(estimate: Estimate) -> dict[str, object]:
    return {"difference": estimate.value, "difference_ci95": [estimate.low, estimate.high]}
