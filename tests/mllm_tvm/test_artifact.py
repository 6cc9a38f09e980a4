"""Artifacts: round trip, every kind of damage, and replacement as a whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mllm_tvm.artifact import CPU_LIBRARY, FLOAT_FILE, WEIGHTS_FILE, load_artifact, write_artifact
from mllm_tvm.errors import ArtifactError
from mllm_tvm.manifest import SCHEMA_VERSION, CacheSpec, Call, FunctionSpec, Graph, Manifest
from mllm_tvm.tensor_file import ALIGNMENT, read_tensors, write_tensors

TENSORS = {
    "norm": np.linspace(0, 1, 7, dtype=np.float32),
    "scale": np.asarray(0.5, np.float32),
    "linear": np.arange(2 * 3 * 32 * 4, dtype=np.uint8).reshape(2, 3, 32, 4),
    "shadow": np.ones((32, 16), np.float16),
}
GRAPH = Graph(
    (FunctionSpec("linear_12x64", "npu", "linear", 12, 64), FunctionSpec("float_0", "cpu", "float")),
    (
        Call("float_0", -1, ("input_ids", "param:norm"), ("%0",)),
        Call("linear_12x64", 0, ("%0", "param:linear"), ("%1",)),
    ),
    (CacheSpec("k_cache_0", "%0", (2, 6)),),
    "%1",
)
MANIFEST = Manifest(
    schema_version=SCHEMA_VERSION,
    model={"vocab_size": 64, "bos": None},
    target="qcom/hexagon-v68",
    host_cpu="generic",
    chunk_lengths=(64, 16),
    quantization={"scheme": "w8a8"},
    graph=GRAPH,
    parameters={name: WEIGHTS_FILE if name == "linear" else FLOAT_FILE for name in TENSORS},
    files={},
)


def _fill(directory: Path) -> None:
    (directory / "npu").mkdir()
    (directory / "npu" / "server.host").write_bytes(b"elf")
    (directory / CPU_LIBRARY).write_bytes(b"library" * 100)
    write_tensors(directory / WEIGHTS_FILE, {"linear": TENSORS["linear"]})
    write_tensors(directory / FLOAT_FILE, {k: v for k, v in TENSORS.items() if k != "linear"})


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "out", MANIFEST, _fill).path


def _edit_manifest(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_round_trip(artifact: Path) -> None:
    loaded = load_artifact(artifact)
    assert replace(loaded.manifest, files={}) == MANIFEST
    assert set(loaded.manifest.files) == {"npu/server.host", CPU_LIBRARY, WEIGHTS_FILE, FLOAT_FILE}
    assert loaded.file("npu/server.host").read_bytes() == b"elf"
    for name, expected in TENSORS.items():
        value = loaded.parameters[name]
        np.testing.assert_array_equal(value, expected, strict=True)
        assert value.ctypes.data % ALIGNMENT == 0


def test_unknown_file_is_an_error(artifact: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no file 'npu/server\.hexagon'"):
        load_artifact(artifact).file("npu/server.hexagon")


@pytest.mark.parametrize("name", [CPU_LIBRARY, WEIGHTS_FILE, FLOAT_FILE, "npu/server.host"])
def test_truncated_file(artifact: Path, name: str) -> None:
    data = (artifact / name).read_bytes()
    (artifact / name).write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match=rf"{name} has {len(data) - 1} bytes, expected {len(data)}"):
        load_artifact(artifact)


def test_flipped_bit(artifact: Path) -> None:
    data = bytearray((artifact / CPU_LIBRARY).read_bytes())
    data[50] ^= 1
    (artifact / CPU_LIBRARY).write_bytes(data)
    with pytest.raises(
        ArtifactError, match=r"cpu\.so has SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}.*again"
    ):
        load_artifact(artifact)
    assert load_artifact(artifact, check_hashes=False).path == artifact


def test_missing_file(artifact: Path) -> None:
    (artifact / CPU_LIBRARY).unlink()
    with pytest.raises(ArtifactError, match=r"cpu\.so is missing"):
        load_artifact(artifact)


def test_missing_directory_and_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a directory"):
        load_artifact(tmp_path / "none")
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        load_artifact(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"schema_version": "1"}', "\udcff", "[" * 99999])
def test_manifest_that_is_not_one(artifact: Path, text: str) -> None:
    (artifact / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        load_artifact(artifact)


def test_schema_versions(artifact: Path) -> None:
    _edit_manifest(artifact, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(ArtifactError, match=r"made by a newer mllm-tvm.*upgrade"):
        load_artifact(artifact)
    _edit_manifest(artifact, schema_version=0)
    with pytest.raises(ArtifactError, match=r"made by an older mllm-tvm.*compile the model again"):
        load_artifact(artifact)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_lengths": [64, "16"]}, r"chunk_lengths\[1\] is '16', expected int"),
        ({"chunk_lengths": [True]}, r"chunk_lengths\[0\] is True, expected int"),
        ({"target": 68}, r"target is 68, expected str"),
        ({"graph": {"functions": []}}, "has no 'calls'"),
        ({"graph": 5}, r"graph is 5, expected an object"),
        ({"files": {"cpu.so": {"sha256": "0", "bytes": None}}}, r"files\.cpu\.so\.bytes is None"),
    ],
)
def test_manifest_with_a_wrong_field(artifact: Path, changes: dict, message: str) -> None:
    _edit_manifest(artifact, **changes)
    with pytest.raises(ArtifactError, match=message):
        load_artifact(artifact)


def test_unknown_processor(artifact: Path) -> None:
    graph = json.loads((artifact / "manifest.json").read_text())["graph"]
    graph["functions"][0]["processor"] = "gpu"
    _edit_manifest(artifact, graph=graph)
    with pytest.raises(ArtifactError, match=r"functions\[0\]\.processor is 'gpu'"):
        load_artifact(artifact)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "npu/../../outside", "link"])
def test_path_escapes(artifact: Path, name: str) -> None:
    outside = artifact.parent / "outside"
    outside.write_bytes(b"secret")
    (artifact / "link").symlink_to(outside)
    _edit_manifest(artifact, files={name: {"sha256": "0" * 64, "bytes": 6}}, parameters={})
    with pytest.raises(ArtifactError, match="outside the artifact"):
        load_artifact(artifact)


def test_parameter_in_an_unlisted_file(artifact: Path) -> None:
    _edit_manifest(artifact, parameters={"w": "other.safetensors"})
    with pytest.raises(ArtifactError, match=r"'w' is in 'other\.safetensors'"):
        load_artifact(artifact)


def test_parameter_that_its_file_lacks(artifact: Path) -> None:
    _edit_manifest(artifact, parameters={"w": FLOAT_FILE})
    with pytest.raises(ArtifactError, match="'w' is not in float"):
        _ = load_artifact(artifact).parameters


def test_replaces_an_artifact_as_a_whole(artifact: Path) -> None:
    write_artifact(artifact, replace(MANIFEST, parameters={}), lambda d: _write(d / "recipe.json", b"{}"))
    assert sorted(p.name for p in artifact.iterdir()) == ["manifest.json", "recipe.json"]
    assert [p.name for p in artifact.parent.iterdir()] == ["out"]


def test_failure_leaves_the_old_artifact(artifact: Path) -> None:
    def fail(directory: Path) -> None:
        _fill(directory)
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_artifact(artifact, MANIFEST, fail)
    assert load_artifact(artifact).manifest.target == MANIFEST.target
    assert [p.name for p in artifact.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("refused", ["staging", "old artifact"])
def test_failed_rename_restores_the_old_artifact(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self == artifact if refused == "old artifact" else target == artifact and self.name != "old":
            raise OSError("no permission")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no permission"):
        write_artifact(artifact, MANIFEST, _fill)
    assert load_artifact(artifact).path == artifact
    assert [p.name for p in artifact.parent.iterdir()] == ["out"]


def test_replaces_what_a_symbolic_link_points_to(artifact: Path) -> None:
    link = artifact.parent / "link"
    link.symlink_to(artifact)
    write_artifact(link, replace(MANIFEST, target="qcom/hexagon-v73"), _fill)
    assert link.is_symlink()
    assert load_artifact(artifact).manifest.target == "qcom/hexagon-v73"


def test_refuses_to_replace_anything_else(tmp_path: Path) -> None:
    _write(tmp_path / "home" / "thesis.txt", b"mine")
    for path in (tmp_path / "home", tmp_path / "home" / "thesis.txt"):
        with pytest.raises(ArtifactError, match="is not an artifact"):
            write_artifact(path, MANIFEST, _fill)
    assert (tmp_path / "home" / "thesis.txt").read_bytes() == b"mine"


def test_tensor_files_are_safetensors(tmp_path: Path) -> None:
    write_tensors(tmp_path / "ours", TENSORS)
    for name, value in load_file(tmp_path / "ours").items():
        np.testing.assert_array_equal(value, TENSORS[name], strict=True)
    save_file(TENSORS, tmp_path / "theirs", metadata={"format": "np"})
    for name, value in read_tensors(tmp_path / "theirs").items():
        np.testing.assert_array_equal(value, TENSORS[name], strict=True)
        assert value.ctypes.data % ALIGNMENT == 0


def test_large_tensors_are_mapped_not_copied(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", TENSORS)
    tensors = read_tensors(tmp_path / "file")
    assert _is_mapped(tensors["linear"])
    assert _is_mapped(tensors["shadow"])
    tensors["linear"][...] = 0
    np.testing.assert_array_equal(read_tensors(tmp_path / "file")["linear"], TENSORS["linear"])


@pytest.mark.parametrize(
    "damage", [b"", b"\xff" * 8, (99999).to_bytes(8, "little") + b"[" * 99999, b"\x02\0\0\0\0\0\0\0{}x"[:9]]
)
def test_damaged_tensor_file(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "file").write_bytes(damage)
    with pytest.raises(ArtifactError, match="not a readable safetensors file"):
        read_tensors(tmp_path / "file")


def test_unsupported_dtype(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="'w' has dtype complex64"):
        write_tensors(tmp_path / "file", {"w": np.zeros(2, np.complex64)})


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _is_mapped(array: np.ndarray | None) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = array.base if isinstance(array.base, np.ndarray) else None
    return False
