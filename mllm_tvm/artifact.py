"""Artifacts: directories of plain files with a manifest, checked before use and replaced as a whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from mllm_tvm.errors import ArtifactError
from mllm_tvm.manifest import MANIFEST_NAME, FileEntry, Manifest
from mllm_tvm.tensor_file import aligned_copy, read_tensors

CPU_LIBRARY = "cpu.so"
DEVICE_SERVER, HOST_SERVER = "npu/server.hexagon", "npu/server.host"
WEIGHTS_FILE, HOT_FILE, FLOAT_FILE = "weights.safetensors", "hot.safetensors", "float.safetensors"
TOKENIZER_FILE, CONFIG_FILE, RECIPE_FILE = "tokenizer.json", "config.json", "recipe.json"
_HASH_BLOCK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A validated artifact directory."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of a file, for example ``cpu.so``; raises ArtifactError when the artifact has none."""
        if name not in self.manifest.files:
            raise ArtifactError(f"the artifact {self.path} has no file {name!r}; compile the model again")
        return self.path / name

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """All parameters by name, 64-byte aligned; raises ArtifactError if one is missing.

        They are memory-mapped, except for the float rows of hot channels, which are read now and stay.
        """
        files = {name: self._read(name) for name in set(self.manifest.parameters.values())}
        missing = [name for name, file in self.manifest.parameters.items() if name not in files[file]]
        if missing:
            where = self.manifest.parameters[missing[0]]
            raise ArtifactError(f"parameter {missing[0]!r} is not in {where}; compile the model again")
        return {name: files[file][name] for name, file in self.manifest.parameters.items()}

    def _read(self, name: str) -> dict[str, np.ndarray]:
        tensors = read_tensors(self.file(name))
        if name == HOT_FILE:
            return {tensor: aligned_copy(value) for tensor, value in tensors.items()}
        return tensors


def load_artifact(path: str | os.PathLike[str], check_hashes: bool = True) -> Artifact:
    """Open and validate an artifact; nothing in it is executed or mapped.

    ``check_hashes=False`` still compares file sizes. Raises ArtifactError when the directory or a file is
    missing or damaged, a file lies outside the directory, or the manifest is of another schema version.
    """
    directory = Path(path)
    manifest_path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise ArtifactError(
            f"{directory} is not a directory; expected an artifact made by `mllm-tvm compile`"
        )
    if not manifest_path.is_file():
        raise ArtifactError(
            f"{directory} has no {MANIFEST_NAME}; expected an artifact made by `mllm-tvm compile`"
        )
    manifest = _read_manifest(manifest_path)
    for name, entry in manifest.files.items():
        _check_file(directory, name, entry, check_hashes)
    for parameter, name in manifest.parameters.items():
        if name not in manifest.files:
            raise ArtifactError(f"parameter {parameter!r} is in {name!r}, which the manifest does not list")
    return Artifact(directory, manifest)


def write_artifact(
    path: str | os.PathLike[str], manifest: Manifest, fill: Callable[[Path], None]
) -> Artifact:
    """Make an artifact at ``path``, replacing an older one.

    ``fill`` writes every file but the manifest into the directory it is given; ``manifest.files`` is made
    from what it wrote. On failure ``path`` is as before and nothing is left behind. Raises ArtifactError when
    ``path`` is something other than an artifact or an empty directory.
    """
    target = Path(path).resolve()
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        fill(staging)
        text = replace(manifest, files=_describe_files(staging)).to_json()
        (staging / MANIFEST_NAME).write_text(text)
        staging.chmod(0o755)
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Artifact(target, Manifest.from_json(text))


def _read_manifest(path: Path) -> Manifest:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); compile the model again") from error
    return Manifest.from_json(text)


def _check_file(directory: Path, name: str, entry: FileEntry, check_hash: bool) -> None:
    path = directory / name
    relative = PurePosixPath(name)
    if (
        relative.is_absolute()
        or ".." in relative.parts
        or not path.resolve().is_relative_to(directory.resolve())
    ):
        raise ArtifactError(f"file {name!r} lies outside the artifact {directory}: refusing to open it")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; compile the model again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise ArtifactError(
            f"{path} has {size} bytes, expected {entry.bytes}: damaged; compile the model again"
        )
    digest = _sha256(path) if check_hash else entry.sha256
    if digest != entry.sha256:
        raise ArtifactError(
            f"{path} has SHA-256 {digest}, expected {entry.sha256}: damaged; compile the model again"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _describe_files(directory: Path) -> dict[str, FileEntry]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): FileEntry(_sha256(path), path.stat().st_size)
        for path in paths
    }


def check_replaceable(target: Path) -> None:
    """Raises ArtifactError when ``target`` is something other than an artifact or an empty directory."""
    if target.is_dir() and ((target / MANIFEST_NAME).is_file() or not any(target.iterdir())):
        return
    if target.exists() or target.is_symlink():
        raise ArtifactError(f"{target} exists and is not an artifact: choose another path or remove it")


def _swap(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of ``target``; what was there returns if that fails."""
    if not target.exists():
        staging.rename(target)
        return
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        target.rename(holder / "old")
        try:
            staging.rename(target)
        except OSError:
            (holder / "old").rename(target)
            raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)
