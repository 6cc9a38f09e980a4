"""From a model directory to an artifact in one step, cached for each user."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from tvm import ir
from tvm.target.codegen import llvm_get_system_cpu

from mllm_tvm.artifact import Artifact, load_artifact
from mllm_tvm.calibration import calibrate, read_texts
from mllm_tvm.compiler import DEFAULT_CHUNK_LENGTHS, DEFAULT_TARGET, compile
from mllm_tvm.demo import MODEL_DIR
from mllm_tvm.demo.stories import stories
from mllm_tvm.errors import ArtifactError, ModelError
from mllm_tvm.frontend import Model, load_model
from mllm_tvm.manifest import MANIFEST_NAME
from mllm_tvm.recipe import Recipe
from targets.hexagon.toolchain import cache_dir, prepare_servers

StageObserver = Callable[[str, float], None]

_PACKAGES = ("mllm_tvm", "relax_passes", "targets")
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
    """Whether gated MLPs without shadow paths run on the NPU in one launch."""

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
    stage. Raises the errors of ``load_model``, ``calibrate`` and ``compile``.
    """
    stages = _Stages(on_stage)
    with stages.measure("load"):
        model = load_model(path)
    with stages.measure("calibrate"):
        recipe = make_recipe(model, settings)
    with stages.measure("passes"):
        observe = _Dump(dump_ir).write if dump_ir else None
        compiled = compile(model, recipe, settings.target, settings.chunk_lengths, observe, settings.fuse_mlp)
    with stages.measure("device servers"):
        # The first time on a machine, the cross compiler builds its C library too.
        prepare_servers()
    with stages.measure("kernels and parameters"):
        return compiled.save(output)


def make_recipe(model: Model, settings: CompileSettings) -> Recipe:
    """The recipe the settings name, or one calibrated on their text."""
    if settings.recipe is not None:
        return Recipe.load(settings.recipe)
    return calibrate(model, calibration_texts(settings))


def calibration_texts(settings: CompileSettings) -> Iterator[str]:
    """The calibration text of ``settings``, segment by segment."""
    if settings.calibration is not None:
        return iter(read_texts(settings.calibration))
    return iter(stories(seed=_STORIES_SEED, count=_STORIES))


def find_artifact(
    path: str | None, settings: CompileSettings, on_stage: StageObserver | None = None
) -> Artifact:
    """The artifact at ``path``, or the cached one of the model there (None: the demo model).

    A model is compiled when the cache has no artifact of it made with these settings, this code and for this
    CPU. Raises the errors of ``load_artifact`` and ``compile_model``, ModelError when ``path`` does not
    exist.
    """
    source = Path(path) if path is not None else MODEL_DIR
    if not source.exists():
        raise ModelError(f"{source} does not exist: expected an artifact or a model directory")
    if (source / MANIFEST_NAME).is_file():
        return load_artifact(source)
    cached = cache_dir() / "artifacts" / _cache_key(source, settings)
    if cached.is_dir():
        try:
            return load_artifact(cached)
        except ArtifactError as error:
            print(f"compiling again: {error}", file=sys.stderr)
    return compile_model(source, cached, settings, on_stage=on_stage)


def _cache_key(model: Path, settings: CompileSettings) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps([asdict(settings), llvm_get_system_cpu()]).encode())
    texts = [Path(file) for file in (settings.calibration, settings.recipe) if file is not None]
    directory = model if model.is_dir() else model.parent
    for file in [*sorted(directory.iterdir()), *texts, *_sources()]:
        if file.is_file():
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:24]


def _sources() -> Iterator[Path]:
    """The code that makes artifacts: a change of it makes new ones."""
    for package in _PACKAGES:
        spec = find_spec(package)
        roots = spec.submodule_search_locations if spec is not None else None
        for root in roots or ():
            yield from sorted(p for p in Path(root).rglob("*") if p.suffix in (".py", ".c", ".h"))


class _Stages:
    """Measures the stages of a compilation."""

    def __init__(self, on_stage: StageObserver | None):
        self.on_stage = on_stage

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        if self.on_stage is not None:
            self.on_stage(name, time.perf_counter() - begin)


class _Dump:
    """Writes the IR after each pass as TVMScript, numbered in order."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.count = 0

    def write(self, name: str, mod: ir.IRModule) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / f"{self.count}-{name}.py").write_text(mod.script())
        self.count += 1
