"""Artifacts of models that are run without being compiled first: found again, and not kept for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mllm_tvm import artifact_cache
from mllm_tvm.artifact import Artifact, write_artifact
from mllm_tvm.artifact_cache import find_artifact, forget_old
from mllm_tvm.build import CompileSettings
from mllm_tvm.errors import ModelError
from mllm_tvm.manifest import SCHEMA_VERSION, Graph, Manifest

MANIFEST = Manifest(
    schema_version=SCHEMA_VERSION,
    model={},
    target="qcom/hexagon-v68",
    host_cpu="generic",
    chunk_lengths=(16,),
    quantization={},
    graph=Graph((), (), (), "%0"),
    parameters={},
    files={},
)
SETTINGS = CompileSettings()


def _fill(directory: Path) -> None:
    (directory / "f").write_bytes(b"f")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The models compiled so far, into a cache of this test's own."""
    found: list[Path] = []

    def compile_model(path: Path, output: Path, *_args: Any, **_options: Any) -> Artifact:
        found.append(path)
        return write_artifact(output, MANIFEST, _fill)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(artifact_cache, "compile_model", compile_model)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that stands for a model."""
    path = tmp_path / "models" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


def test_a_model_is_compiled_once(compiled: list[Path], model: Path) -> None:
    first = find_artifact(str(model), SETTINGS)
    (model.parent / "other.gguf").write_bytes(b"another model beside it")
    assert find_artifact(str(model), SETTINGS).path == first.path
    assert compiled == [model]
    assert find_artifact(str(first.path), SETTINGS).path == first.path


def _new_weights(model: Path, _artifact: Artifact) -> CompileSettings:
    model.write_bytes(b"other weights")
    return SETTINGS


def _new_target(_model: Path, _artifact: Artifact) -> CompileSettings:
    return replace(SETTINGS, target="qcom/hexagon-v73")


def _damage(_model: Path, artifact: Artifact) -> CompileSettings:
    (artifact.path / "f").write_bytes(b"x")
    return SETTINGS


@pytest.mark.parametrize("change", [_new_weights, _new_target, _damage])
def test_a_change_compiles_again(
    compiled: list[Path], model: Path, change: Callable[[Path, Artifact], CompileSettings]
) -> None:
    settings = change(model, find_artifact(str(model), SETTINGS))
    find_artifact(str(model), settings)
    assert compiled == [model, model]


def test_the_artifacts_used_last_are_kept(
    compiled: list[Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_cache, "KEPT_ARTIFACTS", 2)
    paths = []
    for age, lengths in ((30, (16,)), (20, (32,)), (10, (64,))):
        settings = replace(SETTINGS, chunk_lengths=lengths)
        if lengths == (64,):
            find_artifact(str(model), replace(SETTINGS, chunk_lengths=(16,)))  # used again
        paths.append(find_artifact(str(model), settings).path)
        os.utime(paths[-1], (0, paths[-1].stat().st_mtime - age))
    assert [path.is_dir() for path in paths] == [True, False, True]
    assert len(compiled) == 3


def test_only_artifacts_are_removed(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    made = [write_artifact(tmp_path / name, MANIFEST, _fill).path for name in "ab"]
    forget_old(tmp_path, 0)
    assert (tmp_path / "notes").is_dir()
    assert not any(path.exists() for path in made)


def test_a_path_that_does_not_exist() -> None:
    with pytest.raises(ModelError, match="no/such/model does not exist"):
        find_artifact("no/such/model", SETTINGS)
