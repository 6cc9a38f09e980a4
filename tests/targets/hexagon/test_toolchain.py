"""The cross compiler, the emulator and the device server they give."""

from __future__ import annotations

import importlib.util
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from targets.errors import ToolchainError
from targets.hexagon import toolchain
from targets.hexagon.codegen import build_object
from targets.hexagon.toolchain import ServerKind, cache_dir, compile_c, find_qemu, link_server
from tests.targets.hexagon.kernels import add_kernel, needs_qemu, target_of

ELF_EXECUTABLE = 2
ELF_HEXAGON = 164
USAGE_EXIT_CODE = 2


def object_file(kind: ServerKind, folder: Path) -> Path:
    path = folder / f"{kind}.o"
    build_object({"add": add_kernel(8)}, target_of(kind), path)
    return path


def test_hexagon_server_is_a_static_executable(tmp_path: Path) -> None:
    server = link_server([object_file("qemu", tmp_path)], "qemu", tmp_path / "server")
    content = server.read_bytes()
    assert struct.unpack_from("<HH", content, 16) == (ELF_EXECUTABLE, ELF_HEXAGON)
    assert b"/lib/ld-musl" not in content
    assert stat.S_IMODE(server.stat().st_mode) & stat.S_IXUSR
    assert {path.name for path in tmp_path.iterdir()} == {"qemu.o", "server"}


@pytest.mark.parametrize(
    "arguments", [[], ["0"], ["a", "b"], ["-1", "1"], ["0", "999"], ["9", "0", "1", "2"]]
)
def test_server_explains_its_arguments(tmp_path: Path, arguments: list[str]) -> None:
    server = link_server([object_file("host", tmp_path)], "host", tmp_path / "server")
    result = subprocess.run([server, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert result.returncode == USAGE_EXIT_CODE
    assert b"usage:" in result.stderr


def test_server_ends_with_its_client(tmp_path: Path) -> None:
    server = link_server([object_file("host", tmp_path)], "host", tmp_path / "server")
    half_a_packet = struct.pack("<Qi", 100, 1)
    result = subprocess.run([server, "0", "1"], input=half_a_packet, capture_output=True, timeout=20)
    assert (result.returncode, result.stdout) == (0, b"")


def test_second_link_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = object_file("host", tmp_path)
    link_server([kernels], "host", tmp_path / "first")
    monkeypatch.setattr(toolchain, "compile_c", lambda *_: pytest.fail("compiled the server again"))
    assert link_server([kernels], "host", tmp_path / "second").is_file()


def test_c_library_is_compiled_once_for_all_working_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = Path(toolchain._zig_environment()["ZIG_GLOBAL_CACHE_DIR"]) / "o"
    link_server([], "qemu", tmp_path / "server")
    before = set(compiled.glob("*/libc.a"))
    assert before
    for folder in (tmp_path, Path(sys.prefix), Path(sys.prefix).parent):
        monkeypatch.chdir(folder)
        link_server([], "qemu", tmp_path / "server")
    assert set(compiled.glob("*/libc.a")) == before


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    object_file("host", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert link_server([Path("host.o")], "host", Path("server")).is_file()


def test_server_key_depends_on_sources_and_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = {toolchain._server_key("host"), toolchain._server_key("qemu")}
    monkeypatch.setattr(toolchain, "_RUNTIME", tmp_path)
    keys.add(toolchain._server_key("host"))
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    keys.add(toolchain._server_key("host"))
    assert len(keys) == 4


def test_compiler_errors_are_shown(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text("int f(void) { return undeclared; }\n")
    with pytest.raises(ToolchainError, match="undeclared"):
        compile_c(source, "host", tmp_path / "bad.o")
    assert list(tmp_path.iterdir()) == [source]


def test_warnings_are_errors(tmp_path: Path) -> None:
    source = tmp_path / "narrow.c"
    source.write_text("char f(long x);\nchar f(long x) { return x; }\n")
    with pytest.raises(ToolchainError, match="implicit conversion"):
        compile_c(source, "qemu", tmp_path / "narrow.o")


def test_missing_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"nothing\.o does not exist"):
        link_server([tmp_path / "nothing.o"], "host", tmp_path / "server")


def test_object_for_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="zig cc failed"):
        link_server([object_file("qemu", tmp_path)], "host", tmp_path / "server")
    assert not (tmp_path / "server").exists()


def test_missing_compiler_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match="pip install ziglang"):
        link_server([], "host", tmp_path / "server")


def test_missing_emulator_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="apt-get install qemu-user"):
        find_qemu()


@needs_qemu
def test_emulator_is_found() -> None:
    assert find_qemu().name == "qemu-hexagon"


def test_unusable_cache_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mllm-tvm").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"cannot write the cache .*set XDG_CACHE_HOME"):
        link_server([], "host", tmp_path / "server")


def test_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "mllm-tvm"
    assert Path(toolchain._zig_environment()["ZIG_GLOBAL_CACHE_DIR"]).parent == tmp_path / "mllm-tvm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "mllm-tvm"


def test_installations_do_not_share_the_compilers_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = toolchain._zig_environment()["ZIG_GLOBAL_CACHE_DIR"]
    monkeypatch.setattr(sys, "prefix", "/another/.venv")
    assert toolchain._zig_environment()["ZIG_GLOBAL_CACHE_DIR"] != first
