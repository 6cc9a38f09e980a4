"""Artifacts of models that are run without being compiled first: kept for each user, the last few of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from tvm.target.codegen import llvm_get_system_cpu

from mllm_tvm.artifact import Artifact, load_artifact
from mllm_tvm.build import CompileSettings, compile_model
from mllm_tvm.demo import MODEL_DIR
from mllm_tvm.errors import ArtifactError, ModelError
from mllm_tvm.frontend.load import GGUF_SUFFIX
from mllm_tvm.manifest import MANIFEST_NAME
from mllm_tvm.progress import StageObserver
from mllm_tvm.tuning.log import default_root
from targets.hexagon.toolchain import cache_dir

KEPT_ARTIFACTS = 8
_PACKAGES = ("mllm_tvm", "relax_passes", "targets")


def find_artifact(
    path: str | None, settings: CompileSettings, on_stage: StageObserver | None = None
) -> Artifact:
    """The artifact at ``path``, or the cached one of the model there (None: the demo model).

    A model is compiled when the cache has no artifact of it made with these settings, this code and for this
    CPU; the cache then forgets all but the ``KEPT_ARTIFACTS`` used last. Raises the errors of
    ``load_artifact`` and ``compile_model``, ModelError when ``path`` does not exist.
    """
    source = Path(path) if path is not None else MODEL_DIR
    if not source.exists():
        raise ModelError(f"{source} does not exist: expected an artifact or a model directory")
    if (source / MANIFEST_NAME).is_file():
        return load_artifact(source)
    cached = cache_dir() / "artifacts" / _cache_key(source, settings)
    if cached.is_dir():
        try:
            artifact = load_artifact(cached)
            os.utime(cached)
            return artifact
        except ArtifactError as error:
            print(f"compiling again: {error}", file=sys.stderr)
    artifact = compile_model(source, cached, settings, on_stage=on_stage)
    forget_old(cached.parent, KEPT_ARTIFACTS)
    return artifact


def forget_old(folder: Path, kept: int) -> None:
    """Removes all artifacts in ``folder`` but the ``kept`` that were made or used last."""
    artifacts = [path for path in folder.iterdir() if (path / MANIFEST_NAME).is_file()]
    for old in sorted(artifacts, key=_last_use, reverse=True)[kept:]:
        shutil.rmtree(old, ignore_errors=True)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process forgot it at the same time
        return 0.0


def _cache_key(model: Path, settings: CompileSettings) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps([asdict(settings), llvm_get_system_cpu()]).encode())
    texts = [Path(file) for file in (settings.calibration, settings.recipe) if file is not None]
    for file in [*_files(model), *texts, *_sources()]:
        if file.is_file():
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:24]


def _files(model: Path) -> list[Path]:
    """What a model is read from: settings, tokenizer and weights lie beside an ONNX file."""
    if model.suffix == GGUF_SUFFIX:
        return [model]
    return sorted((model if model.is_dir() else model.parent).iterdir())


def _sources() -> Iterator[Path]:
    """The code and the tuned kernels that make artifacts: a change of them makes new ones."""
    yield from sorted(default_root().rglob("*.json"))
    for package in _PACKAGES:
        spec = find_spec(package)
        roots = spec.submodule_search_locations if spec is not None else None
        for root in roots or ():
            yield from sorted(p for p in Path(root).rglob("*") if p.suffix in (".py", ".c", ".h"))
