"""What is evaluated: the schemes of a model, or an artifact, each as a function of token ids."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mllm_tvm.artifact import Artifact, load_artifact
from mllm_tvm.build import CompileSettings, calibration_texts
from mllm_tvm.calibration import Calibration
from mllm_tvm.compiler import compile
from mllm_tvm.errors import EvaluationError
from mllm_tvm.evaluation.tasks import Forward, Limits
from mllm_tvm.frontend import load_model
from mllm_tvm.frontend.float_model import FloatModel
from mllm_tvm.frontend.model import Model
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
# The baselines are as they were published: 8 bits between the linears of an MLP.
_FUSED = (OURS, OURS_PRUNED)


@dataclass(frozen=True)
class EvaluationSettings:
    """Where and how models run: ``compile`` also says what text schemes are calibrated on."""

    device: str = "host"
    compile: CompileSettings = field(default_factory=CompileSettings)
    limits: Limits = field(default_factory=Limits)
    scheme: SchemeSettings = field(default_factory=SchemeSettings)


@dataclass(frozen=True)
class Run:
    """A scheme that is ready to run: ``forward`` maps token ids to logits [seq, vocab] float32."""

    forward: Forward
    artifact: Artifact | None = None

    def shadow(self) -> dict[str, object] | None:
        """Memory, hits and misses of the shadow path, if the scheme has one."""
        memory = shadow_memory(self.artifact) if self.artifact else None
        return memory.report() if memory else None


class SchemeSource:
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
            fuse = settings.fuse_mlp and scheme in _FUSED
            compiled = compile(model, recipe, settings.target, settings.chunk_lengths, fuse_mlp=fuse)
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
            recipe = PruningMeter(calibration, recipe, self.settings.compile.fuse_mlp).importance()
        return prune(recipe, PRUNED_SHARE, measure)

    def _calibration(self, rotated: bool) -> Calibration:
        if rotated not in self._calibrations:
            model = rotate(self.model) if rotated else self.model
            texts = calibration_texts(self.settings.compile)
            self._calibrations[rotated] = Calibration.collect(model, texts)
        return self._calibrations[rotated]


class ArtifactSource:
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
