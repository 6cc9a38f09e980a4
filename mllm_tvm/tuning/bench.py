"""Kernels run once on a device, on random data, and are compared bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tvm import tirx

from mllm_tvm.tuning.workload import Shape
from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.session import DeviceSession
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import Tiling
from targets.hexagon.toolchain import link_server
from targets.packing import ZERO_POINT, linear_w8a8_reference, packed_shape

OpenSession = Callable[[Path], DeviceSession]
"""Starts a device server (a path) on a free device."""


class Kernel(NamedTuple):
    """An integer linear; without ``zero_point`` the bare product ``x @ w``."""

    shape: Shape
    tiling: Tiling
    contexts: int = 1
    zero_point: bool = True


class Outcome(NamedTuple):
    """What a run cost, on the longest path and in all contexts, and whether its result was exact."""

    packets: int
    total_packets: int
    exact: bool


class ReferenceCase(NamedTuple):
    """Random x and packed w over all of their range, and the exact result."""

    shape: Shape
    x: np.ndarray
    w: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, shape: Shape) -> ReferenceCase:
        """The case of a shape, always the same."""
        rng = np.random.default_rng(shape.macs)
        x = rng.integers(-128, 128, (shape.m, shape.k), dtype=np.int8)
        w = rng.integers(0, 256, packed_shape(shape.k, shape.n), dtype=np.uint8)
        return cls(shape, x, w, linear_w8a8_reference(x, w))

    def expected(self, zero_point: bool) -> np.ndarray:
        """What a kernel with or without the zero point gives."""
        sums = self.x.sum(axis=1, dtype=np.int32, keepdims=True)
        return self.y if zero_point else self.y + ZERO_POINT * sums


class Bench:
    """A session with the inputs of one case on the device."""

    def __init__(self, session: DeviceSession, case: ReferenceCase) -> None:
        self.session, self.case = session, case
        self.x, self.w = session.upload(case.x), session.upload(case.w)
        self.y = session.empty(case.y.shape, "int32")

    def run(self, kernel: str, zero_point: bool = True) -> Outcome:
        """Runs a kernel once."""
        self.session.write(self.y, np.full(self.case.y.shape, 0x55555555, np.int32))
        counters = self.session.call(kernel, self.x, self.w, self.y)
        exact = np.array_equal(self.session.download(self.y), self.case.expected(zero_point))
        return Outcome(counters.packets, counters.total_packets, exact)


def run_kernels(
    target: HexagonTarget, kernels: Sequence[Kernel], folder: Path, open_session: OpenSession
) -> dict[Kernel, Outcome]:
    """The outcome of each kernel on its whole shape; the device server is built in ``folder``.

    Raises DeviceError when the device fails, ToolchainError when a kernel does not build.
    """
    names = {kernel: f"kernel{i}" for i, kernel in enumerate(dict.fromkeys(kernels))}
    functions = {name: _emit(kernel, name) for kernel, name in names.items()}
    build_object(functions, target.llvm_target(), folder / "kernels.o")
    server = link_server([folder / "kernels.o"], "qemu", folder / "server")
    outcomes = {}
    with open_session(server) as session:
        for shape in dict.fromkeys(kernel.shape for kernel in names):
            bench = Bench(session, ReferenceCase.of(shape))
            for kernel in names:
                if kernel.shape == shape:
                    outcomes[kernel] = bench.run(names[kernel], kernel.zero_point)
    return outcomes


def _emit(kernel: Kernel, name: str) -> tirx.PrimFunc:
    return linear_w8a8(
        *kernel.shape,
        hvx=True,
        name=name,
        tiling=kernel.tiling,
        contexts=kernel.contexts,
        zero_point=kernel.zero_point,
    )
