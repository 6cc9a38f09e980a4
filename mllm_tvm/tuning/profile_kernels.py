"""What the compiler's kernels cost on a device, shape by shape."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mllm_tvm.tuning.errors import TuningError
from mllm_tvm.tuning.log import TuningLog
from mllm_tvm.tuning.measure import OpenSession, Outcome, measure
from mllm_tvm.tuning.workload import Shape
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import Tiling, fit_vtcm, rule_tiling, traffic


@dataclass(frozen=True)
class KernelProfile:
    """Cost of one call. ``share`` is of the limit of 256 MAC a packet (128 for one row)."""

    m: int
    k: int
    n: int
    tuned: bool
    tiling: Tiling
    packets: int
    macs_per_packet: float
    share: float
    memory_bytes: int
    vtcm_bytes: int
    resident_bytes: int
    exact: bool


def profile_kernels(
    shapes: Sequence[Shape],
    target: HexagonTarget,
    open_device: OpenSession,
    log: TuningLog | None,
) -> list[KernelProfile]:
    """Runs the kernel of each shape once, with the tuned tiling of ``log`` where it has one.

    Raises TargetError for a shape that does not fit, DeviceError and ToolchainError when it cannot run.
    """
    tuned = [log.best(shape) if log else None for shape in shapes]
    tilings = [
        fit_vtcm(*shape, tiling or rule_tiling(*shape), target.vtcm_bytes)
        for shape, tiling in zip(shapes, tuned, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="mllm-profile-") as folder:
        outcomes = measure(target, list(zip(shapes, tilings, strict=True)), Path(folder), open_device)
    return [
        _profile(shape, tiling, outcome, found is not None)
        for shape, tiling, outcome, found in zip(shapes, tilings, outcomes, tuned, strict=True)
    ]


def _profile(shape: Shape, tiling: Tiling, outcome: Outcome, tuned: bool) -> KernelProfile:
    moved = traffic(*shape, tiling)
    rate = shape.macs / outcome.packets if outcome.packets else 0.0
    return KernelProfile(
        *shape,
        tuned=tuned,
        tiling=tiling,
        packets=outcome.packets,
        macs_per_packet=round(rate, 2),
        share=round(rate / shape.limit, 4),
        memory_bytes=moved.memory,
        vtcm_bytes=moved.vtcm,
        resident_bytes=moved.resident,
        exact=outcome.exact,
    )


def parse_shape(text: str) -> Shape:
    """``64x2048x2048`` as a shape; raises TuningError for anything else."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise TuningError(f"{text!r} is no shape: expected MxKxN, like 64x2048x2048")
    return Shape(*map(int, parts))
