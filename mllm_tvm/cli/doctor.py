"""``mllm-tvm doctor``: is everything here that the project needs, and does it work?"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

HELP = "check packages, toolchain, emulator and devices"

# Versions that are known to work; see pyproject.toml.
_PINS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1", "ziglang": "0.17.0"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments of its own."""


def execute(args: argparse.Namespace) -> int:
    """Runs all checks; exit code 1 when one fails."""
    results = [_run(name, check) for name, check in _CHECKS.items()]
    if args.json:
        print(json.dumps({"ok": all(r["ok"] for r in results), "checks": results}))
    else:
        for result in results:
            print(f"{'ok  ' if result['ok'] else 'FAIL'} {result['name']}: {result['detail']}")
    return 0 if all(r["ok"] for r in results) else 1


def _run(name: str, check: Callable[[], str]) -> dict[str, object]:
    try:
        return {"name": name, "ok": True, "detail": check()}
    except Exception as error:  # a broken installation raises anything; the report is the purpose
        return {"name": name, "ok": False, "detail": str(error) or type(error).__name__}


def _python() -> str:
    return platform.python_version()


def _packages() -> str:
    found = {name: importlib.metadata.version(name) for name in _PINS}
    wrong = [f"{name} is {found[name]}, expected {pin}" for name, pin in _PINS.items() if found[name] != pin]
    if wrong:
        raise RuntimeError("; ".join(wrong) + ": run `pip install -e .` in the project")
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _hexagon_backend() -> str:
    from mllm_tvm.compiler import DEFAULT_TARGET
    from targets.hexagon.target import hexagon_target

    return str(hexagon_target(DEFAULT_TARGET).llvm_target().attrs["mcpu"])


def _qemu() -> str:
    from targets.hexagon.toolchain import find_qemu

    return str(find_qemu())


def _kernel(device: str) -> str:
    """Builds the integer linear, runs it on ``device`` and compares it with NumPy, bit for bit."""
    import numpy as np

    from mllm_tvm.compiler import DEFAULT_TARGET
    from targets.hexagon.codegen import build_object
    from targets.hexagon.linear import linear_w8a8
    from targets.hexagon.session import open_session
    from targets.hexagon.target import hexagon_target, host_target
    from targets.hexagon.toolchain import link_server
    from targets.packing import linear_w8a8_reference, pack_weight

    hexagon = device == "qemu"
    target = hexagon_target(DEFAULT_TARGET).llvm_target() if hexagon else host_target()
    rng = np.random.default_rng(0)
    x = rng.integers(-127, 128, (16, 64), dtype=np.int8)
    packed = pack_weight(rng.integers(-127, 128, (64, 64), dtype=np.int8))
    with tempfile.TemporaryDirectory() as scratch:
        kernel_object, server = Path(scratch) / "kernel.o", Path(scratch) / "server"
        build_object({"linear": linear_w8a8(16, 64, 64, hvx=hexagon, name="linear")}, target, kernel_object)
        link_server([kernel_object], "qemu" if hexagon else "host", server)
        with open_session(device, server) as session:
            out = session.empty((16, 64), "int32")
            counters = session.call("linear", session.upload(x), session.upload(packed), out)
            if not np.array_equal(session.download(out), linear_w8a8_reference(x, packed)):
                raise RuntimeError("the kernel's result differs from NumPy's")
    return f"integer linear is exact, {counters.packets} packets"


_CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "packages": _packages,
    "hexagon back end": _hexagon_backend,
    "emulator": _qemu,
    "device qemu": lambda: _kernel("qemu"),
    "device host": lambda: _kernel("host"),
}
