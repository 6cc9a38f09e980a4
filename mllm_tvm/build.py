"""From a model directory to an artifact in one step, cached for each user."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
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
from mllm_tvm.errors import ArtifactError
from mllm_tvm.frontend import Model, load_model
from mllm_tvm.manifest import MANIFEST_NAME
from mllm_tvm.recipe import Recipe
from targets.hexagon.toolchain import cache_dir

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

    @staticmethod
    def of(
        target: str | None,
        chunk_lengths: Sequence[int] | None,
        calibration: str | None,
        recipe: str | None = None,
    ) -> CompileSettings:
        """Settings with the defaults in place of None."""
        lengths = tuple(chunk_lengths) if chunk_lengths is not None else DEFAULT_CHUNK_LENGTHS
        return CompileSettings(target or DEFAULT_TARGET, lengths, calibration, recipe)


def compile_model(
    path: Path, output: Path, settings: CompileSettings, dump_ir: Path | None = None
) -> Artifact:
    """Loads, calibrates and compiles the model directory ``path`` into the artifact ``output``.

    ``dump_ir``: a directory for the IR after each phase. Raises the errors of ``load_model``, ``calibrate``
    and ``compile``.
    """
    model = load_model(path)
    recipe = make_recipe(model, settings)
    observe = _Dump(dump_ir).write if dump_ir else None
    return compile(model, recipe, settings.target, settings.chunk_lengths, observe).save(output)


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


def find_artifact(path: str | None, settings: CompileSettings) -> Artifact:
    """The artifact at ``path``, or the cached one of the model directory there (None: the demo model).

    A model is compiled when the cache has no artifact of it made with these settings, this code and for this
    CPU. Raises the errors of ``load_artifact`` and ``compile_model``.
    """
    source = Path(path) if path is not None else MODEL_DIR
    if (source / MANIFEST_NAME).is_file() or not source.is_dir():
        return load_artifact(source)
    cached = cache_dir() / "artifacts" / _cache_key(source, settings)
    if cached.is_dir():
        try:
            return load_artifact(cached)
        except ArtifactError as error:
            print(f"compiling again: {error}", file=sys.stderr)
    return compile_model(source, cached, settings)


def _cache_key(model: Path, settings: CompileSettings) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps([asdict(settings), llvm_get_system_cpu()]).encode())
    texts = [Path(file) for file in (settings.calibration, settings.recipe) if file is not None]
    for file in [*sorted(model.iterdir()), *texts, *_sources()]:
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:24]


def _sources() -> Iterator[Path]:
    """The code that makes artifacts: a change of it makes new ones."""
    for package in _PACKAGES:
        spec = find_spec(package)
        roots = spec.submodule_search_locations if spec is not None else None
        for root in roots or ():
            yield from sorted(p for p in Path(root).rglob("*") if p.suffix in (".py", ".c", ".h"))


class _Dump:
    """Writes the IR after each phase as TVMScript, numbered in order."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.count = 0

    def write(self, phase: str, mod: ir.IRModule) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / f"{self.count}-{phase}.py").write_text(mod.script())
        self.count += 1
