"""The cross compiler (zig, from PyPI), the emulator, and the device server built with them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import tvm_ffi

from targets.errors import ToolchainError

ServerKind = Literal["qemu", "host"]
_GLIBC = "2.28"

_RUNTIME = Path(__file__).parent / "runtime"
_WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
_STDERR_TAIL = 2000
_COMPILE_SECONDS = 900
"""The first compilation for a target also compiles its C library: minutes on a busy machine."""


def find_qemu() -> Path:
    """The Hexagon user mode emulator; raises ToolchainError when it is not installed."""
    found = shutil.which("qemu-hexagon")
    if found is None:
        raise ToolchainError(
            "qemu-hexagon is not on PATH, and device 'qemu' runs Hexagon code in it: "
            "install it with `apt-get install qemu-user` (or `make demo`), or use device 'host'"
        )
    return Path(found)


def cache_dir() -> Path:
    """Where compiled servers and the compiler's own caches are kept, for each user; it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "mllm-tvm"


def compile_c(source: Path, kind: ServerKind, out: Path) -> None:
    """Compile one C11 file of the device server into the object file ``out``."""
    _run_zig([*_compile_flags(kind), "-c", str(source.resolve())], out)


def link_server(objects: Sequence[Path], kind: ServerKind, out: Path) -> Path:
    """Link kernel ``objects`` and the device server into the executable ``out``, and return it.

    ``kind`` "qemu" gives a static Hexagon ELF, "host" one for this CPU; ``objects`` must be for it. Raises
    ToolchainError when ziglang is missing or fails, with the end of what it printed.
    """
    for path in objects:
        if not path.is_file():
            raise ToolchainError(f"kernel object {path} does not exist: build it with build_object first")
    inputs = [*map(str, _server_objects(kind)), *(str(path.resolve()) for path in objects)]
    _run_zig([*_link_flags(kind), *inputs], out)
    return out


def prepare_servers() -> None:
    """Compile the device server for both kinds of device, and its C library, unless a cache has them.

    ``link_server`` does the same when needed; calling this first separates the two times.
    """
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".preparing-") as folder:
        for kind in get_args(ServerKind):
            link_server([], kind, Path(folder) / kind)


def include_flags() -> list[str]:
    """Compiler flags that find the headers of TVM's C ABI."""
    folders = (tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path())
    return [flag for folder in folders for flag in ("-isystem", str(folder))]


def server_sources() -> list[Path]:
    """The C files of the device server."""
    return sorted(_RUNTIME.glob("*.c"))


def _triple(kind: ServerKind) -> str:
    # On the host the C library of the machine, which TVM's wheel asks for too: zig has its symbols, so that
    # nothing of the machine is needed to compile, while it would build musl from source (40 s of CPU time).
    return "hexagon-linux-musl" if kind == "qemu" else f"{platform.machine()}-linux-gnu.{_GLIBC}"


def _link_flags(kind: ServerKind) -> list[str]:
    static = ["-static"] if kind == "qemu" else []
    return ["-target", _triple(kind), "-O2", "-s", *static]


def _compile_flags(kind: ServerKind) -> list[str]:
    flags = ["-target", _triple(kind), "-std=c11", "-O2", *_WARNINGS, *include_flags()]
    # QEMU 7.2 reads a stale value when one packet holds a store and an aliasing load.
    return [*flags, "-mno-packets"] if kind == "qemu" else flags


def _server_objects(kind: ServerKind) -> list[Path]:
    folder = cache_dir() / "server" / f"{kind}-{_server_key(kind)}"
    if not folder.is_dir():
        try:
            _compile_server(kind, folder)
        except OSError as error:
            raise ToolchainError(
                f"cannot write the cache {cache_dir()}: {error}; set XDG_CACHE_HOME"
            ) from error
    return sorted(folder.glob("*.o"))


def _server_key(kind: ServerKind) -> str:
    """Identifies the sources and the compiler of the device server: what caches of it depend on."""
    digest = hashlib.sha256()
    versions = [importlib.metadata.version("apache-tvm-ffi"), _zig_version()]
    for text in [*_compile_flags(kind), *versions]:
        digest.update(text.encode() + b"\0")
    for path in sorted(_RUNTIME.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:20]


def _compile_server(kind: ServerKind, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".compiling-") as unfinished:
        objects = Path(unfinished) / "objects"
        objects.mkdir()
        for source in server_sources():
            compile_c(source, kind, objects / f"{source.stem}.o")
        try:
            os.replace(objects, folder)
        except OSError:
            # Another process may have finished first, and its objects are the same.
            if not folder.is_dir():
                raise


def _zig_version() -> str:
    if importlib.util.find_spec("ziglang") is None:
        raise ToolchainError("the cross compiler is missing: install it with `pip install ziglang==0.17.0`")
    return importlib.metadata.version("ziglang")


def _run_zig(arguments: Sequence[str], out: Path) -> None:
    """Run ``zig cc``, writing to a temporary name beside ``out`` first; paths are absolute.

    It works in the temporary folder: below a working directory, zig names its own files relative to it, and
    finds what it compiled (its C library, a minute) only from there again.
    """
    _zig_version()
    with tempfile.TemporaryDirectory(dir=out.parent.resolve(), prefix=".zig-") as folder:
        unfinished = Path(folder) / out.name
        command = [sys.executable, "-m", "ziglang", "cc", *arguments, "-o", str(unfinished)]
        try:
            result = subprocess.run(
                command,
                cwd=folder,
                env=_zig_environment(),
                capture_output=True,
                text=True,
                timeout=_COMPILE_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise ToolchainError(f"zig cc did not finish {out} within {_COMPILE_SECONDS} s") from error
        if result.returncode != 0:
            tail = result.stderr[-_STDERR_TAIL:].strip()
            raise ToolchainError(f"zig cc failed (exit code {result.returncode}) for {out}:\n{tail}")
        os.replace(unfinished, out)


def _zig_environment() -> dict[str, str]:
    # Two installations that share a cache make each other compile the C library again, every time.
    installation = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
    caches = {"ZIG_GLOBAL_CACHE_DIR": "zig", "ZIG_LOCAL_CACHE_DIR": "zig-local"}
    return {
        **{name: str(cache_dir() / f"{kind}-{installation}") for name, kind in caches.items()},
        **os.environ,
    }
