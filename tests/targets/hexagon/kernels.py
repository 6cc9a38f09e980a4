"""Small kernels, and device servers that hold them, for the tests of the toolchain and of sessions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tvm
from tvm import te, tirx

from targets.hexagon.codegen import build_object
from targets.hexagon.target import host_target
from targets.hexagon.toolchain import ServerKind, link_server

SLOW_SIZE = 1024
PARALLEL_SIZE = 1 << 16

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-hexagon") is None, reason="qemu-hexagon is not installed (apt-get install qemu-user)"
)


def hexagon_target() -> tvm.target.Target:
    return tvm.target.Target(
        {
            "kind": "llvm",
            "mtriple": "hexagon-unknown-linux-musl",
            "mcpu": "hexagonv66",
            "mattr": ["+hvxv66", "+hvx-length128b"],
            "keys": ["hexagon", "cpu"],
        }
    )


def target_of(kind: ServerKind) -> tvm.target.Target:
    return hexagon_target() if kind == "qemu" else host_target()


def add_kernel(length: int) -> tirx.PrimFunc:
    """c = a + b, int32."""
    a, b = (te.placeholder((length,), "int32", name=name) for name in "ab")
    return te.create_prim_func([a, b, te.compute((length,), lambda i: a[i] + b[i], name="c")])


def parallel_add_kernel() -> tirx.PrimFunc:
    """c = a + b, int32, in a parallel loop."""
    schedule = tvm.s_tir.Schedule(add_kernel(PARALLEL_SIZE))
    block = schedule.get_sblock("c")
    outer, inner = schedule.split(schedule.get_loops(block)[0], [None, 32])
    schedule.parallel(outer)
    schedule.vectorize(inner)
    return schedule.mod["main"]


def slow_kernel() -> tirx.PrimFunc:
    """An int32 matrix product, unscheduled: it takes a second or more on any device."""
    shape = (SLOW_SIZE, SLOW_SIZE)
    a, b = (te.placeholder(shape, "int32", name=name) for name in "ab")
    k = te.reduce_axis((0, SLOW_SIZE), name="k")
    product = te.compute(shape, lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
    return te.create_prim_func([a, b, product])


def crash_kernel() -> tirx.PrimFunc:
    """Aborts the process it runs in."""
    return te.create_prim_func([te.compute((1,), lambda i: tirx.call_extern("int32", "abort"), name="c")])


def hang_kernel() -> tirx.PrimFunc:
    """Never ends."""
    return te.create_prim_func([te.compute((1,), lambda i: tirx.call_extern("int32", "pause"), name="c")])


def build_server(kind: ServerKind, folder: Path) -> Path:
    """A server with the kernels "add" (length 64), "parallel_add", "slow", "crash" and "hang"."""
    kernels = {
        "add": add_kernel(64),
        "parallel_add": parallel_add_kernel(),
        "slow": slow_kernel(),
        "crash": crash_kernel(),
        "hang": hang_kernel(),
    }
    build_object(kernels, target_of(kind), folder / f"{kind}.o")
    return link_server([folder / f"{kind}.o"], kind, folder / f"server-{kind}")
