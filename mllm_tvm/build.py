"""From a model to an artifact in one step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm import ir

from mllm_tvm.artifact import Artifact, check_replaceable
from mllm_tvm.calibration import Calibration, calibrate, read_texts
from mllm_tvm.compiler import DEFAULT_CHUNK_LENGTHS, DEFAULT_TARGET, check_settings, compile
from mllm_tvm.demo.stories import stories
from mllm_tvm.frontend import Model, load_model
from mllm_tvm.progress import StageObserver, Stages
from mllm_tvm.quantization.pruning import PruningMeter, prune
from mllm_tvm.quantization.schemes import OURS
from mllm_tvm.recipe import Recipe
from mllm_tvm.runtime.policies import DEFAULT_POLICY
from targets.hexagon.toolchain import prepare_servers

_STORIES = 200
_STORIES_SEED = 20


@dataclass(frozen=True)
class CompileSettings:
    """What an artifact is made with, apart from the model."""

    target: str = DEFAULT_TARGET
    chunk_lengths: tuple[int, ...] = DEFAULT_CHUNK_LENGTHS
    calibration: str | None = None
    """A text file (see ``read_texts``); None: stories of the project's own generator."""
    recipe: str | None = None
    """A recipe file to use instead of calibrating."""
    fuse_mlp: bool = True
    """Whether gated MLPs run on the NPU in one launch, their outliers included."""
    pruned_share: float = 0.0
    """Share of the linears, the least important ones, whose shadow path is left out."""
    policy: str = DEFAULT_POLICY
    """The scheduling policy that engines use unless told otherwise."""

    @staticmethod
    def of(
        target: str | None,
        chunk_lengths: Sequence[int] | None,
        calibration: str | None,
        recipe: str | None = None,
        fuse_mlp: bool = True,
    ) -> CompileSettings:
        """Settings with the defaults in place of None."""
        lengths = tuple(chunk_lengths) if chunk_lengths is not None else DEFAULT_CHUNK_LENGTHS
        return CompileSettings(target or DEFAULT_TARGET, lengths, calibration, recipe, fuse_mlp)


def compile_model(
    path: Path,
    output: Path,
    settings: CompileSettings,
    dump_ir: Path | None = None,
    on_stage: StageObserver | None = None,
) -> Artifact:
    """Loads, calibrates and compiles the model at ``path`` into the artifact ``output``.

    ``dump_ir``: a directory for the IR after each pass. ``on_stage(name, seconds)`` is called after each
    stage. Raises the errors of ``load_model``, ``calibrate`` and ``compile``; what is wrong with the settings
    and ``output`` shows before any work.
    """
    check_settings(settings.target, settings.chunk_lengths, settings.policy)
    check_replaceable(output)
    stages = Stages(on_stage)
    with stages.measure("load"):
        model = load_model(path)
    with stages.measure("calibrate"):
        recipe = make_recipe(model, settings)
    with stages.measure("passes"):
        observe = _Dump(dump_ir).write if dump_ir else None
        compiled = compile(
            model,
            recipe,
            settings.target,
            settings.chunk_lengths,
            observe,
            settings.fuse_mlp,
            settings.policy,
        )
    with stages.measure("cross compiler"):
        # The first time on a machine, the cross compiler builds its C library too.
        prepare_servers()
    return compiled.save(output, on_stage)


def make_recipe(model: Model, settings: CompileSettings) -> Recipe:
    """The recipe the settings name, or one calibrated on their text; pruned if they say so."""
    share = settings.pruned_share
    if settings.recipe is not None:
        recipe = Recipe.load(settings.recipe)
        return prune(recipe, share) if share else recipe
    if not share:
        return calibrate(model, calibration_texts(settings))
    calibration = Calibration.collect(model, calibration_texts(settings))
    meter = PruningMeter(calibration, calibration.recipe(OURS), settings.fuse_mlp)
    return prune(meter.importance(), share)


def calibration_texts(settings: CompileSettings) -> Iterator[str]:
    """The calibration text of ``settings``, segment by segment."""
    if settings.calibration is not None:
        return iter(read_texts(settings.calibration))
    return iter(stories(seed=_STORIES_SEED, count=_STORIES))


class _Dump:
    """Writes the IR after each pass as TVMScript, numbered in order."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.count = 0

    def write(self, name: str, mod: ir.IRModule) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / f"{self.count:02}-{name}.py").write_text(mod.script())
        self.count += 1
