"""What the compiler's kernels cost on a device, shape by shape."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllm_tvm.tuning.bench import Kernel, OpenSession, Outcome, run_kernels
from mllm_tvm.tuning.errors import TuningError
from mllm_tvm.tuning.log import TuningLog
from mllm_tvm.tuning.workload import Shape
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import Tiling, fit_vtcm, rule_tiling, traffic


@dataclass(frozen=True)
class KernelProfile:
    """Cost of one call.

    ``packets`` and what follows from them are those of one context, row sums included; ``share`` is of the
    limit of 256 MAC a packet (128 for one row). ``gemm_mac_per_packet`` is that of the bare product, without
    the zero point of the weights. With ``contexts`` at work, the busiest has ``context_packets`` to do
    (including the serial parts) and all together ``total_packets``; ``context_ratio`` is
    ``packets / context_packets``. The last flag says whether all of these kernels gave the exact result.
    """

    m: int
    k: int
    n: int
    tuned: bool
    tiling: Tiling
    packets: int
    mac_per_packet: float
    share: float
    gemm_mac_per_packet: float
    contexts: int
    context_packets: int
    total_packets: int
    context_ratio: float
    memory_bytes: int
    vtcm_bytes: int
    resident_bytes: int
    exact: bool


def profile_kernels(
    shapes: Sequence[Shape],
    target: HexagonTarget,
    open_device: OpenSession,
    log: TuningLog | None,
    contexts: int = 1,
) -> list[KernelProfile]:
    """Runs the kernels of each shape once, with the tuned tiling of ``log`` where it has one.

    Raises TuningError unless ``contexts`` is 1 to the target's, TargetError for a shape that does not fit,
    DeviceError and ToolchainError when a kernel cannot run.
    """
    if not 1 <= contexts <= target.contexts:
        raise TuningError(f"cannot use {contexts} contexts: {target.tag} has {target.contexts}")
    tuned = {shape: log.best(shape) if log else None for shape in shapes}
    tilings = {
        shape: fit_vtcm(*shape, tuned[shape] or rule_tiling(*shape), target.vtcm_bytes, contexts)
        for shape in tuned
    }
    kernels = [kernel for item in tilings.items() for kernel in _kernels(*item, contexts)]
    with tempfile.TemporaryDirectory(prefix="mllm-profile-") as folder:
        outcomes = run_kernels(target, kernels, Path(folder), open_device)
    return [_profile(*item, contexts, outcomes, tuned[item[0]] is not None) for item in tilings.items()]


def _kernels(shape: Shape, tiling: Tiling, contexts: int) -> tuple[Kernel, Kernel, Kernel]:
    """The whole function, the bare product, and the function on several contexts."""
    return (
        Kernel(shape, tiling),
        Kernel(shape, tiling, zero_point=False),
        Kernel(shape, tiling, contexts),
    )


def _profile(
    shape: Shape, tiling: Tiling, contexts: int, outcomes: Mapping[Kernel, Outcome], tuned: bool
) -> KernelProfile:
    moved = traffic(*shape, tiling, contexts)
    whole, gemm, shared = (outcomes[kernel] for kernel in _kernels(shape, tiling, contexts))
    rate = _ratio(shape.macs, whole.packets)
    return KernelProfile(
        *shape,
        tuned=tuned,
        tiling=tiling,
        packets=whole.packets,
        mac_per_packet=round(rate, 2),
        share=round(rate / shape.limit, 4),
        gemm_mac_per_packet=round(_ratio(shape.macs, gemm.packets), 2),
        contexts=contexts,
        context_packets=shared.packets,
        total_packets=shared.total_packets,
        context_ratio=round(_ratio(whole.packets, shared.packets), 3),
        memory_bytes=moved.memory,
        vtcm_bytes=moved.vtcm,
        resident_bytes=moved.resident,
        exact=whole.exact and gemm.exact and shared.exact,
    )


def _ratio(a: int, b: int) -> float:
    return a / b if b else 0.0


def parse_shape(text: str) -> Shape:
    """``64x2048x2048`` as a shape; raises TuningError for anything else."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise TuningError(f"{text!r} is no shape: expected MxKxN, like 64x2048x2048")
    return Shape(*map(int, parts))
