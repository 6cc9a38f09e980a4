"""Measures a device's integer kernels through a device session, into a device profile.

Kernels of several row counts give the integer rate and the chunk-length efficiency. An emulator counts
packets, and its wall time means nothing: there seconds are packets / clock, and bandwidth and launch time
stay the base profile's. On other devices calls are timed; the smallest kernel gives the launch time and a
single row times a weight larger than caches the bandwidth. What no kernel can show (CPU, power, memory)
stays the base profile's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from targets.errors import MllmTvmError
from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.session import DeviceSession, open_session
from targets.hexagon.target import hexagon_target, host_target
from targets.hexagon.toolchain import ServerKind, link_server
from targets.packing import packed_shape

from .errors import SimulationError
from .profile import DeviceProfile

ROWS = (1, 4, 16, 64, 256)
K, N = 2048, 2048
STREAMED = (1, 4096, 8192)
_SMALL = (1, 32, 32)
_REPEATS = 5
_TIMED_S = 0.1
"""Calls are repeated for so long: the least of few is chance."""
_TARGET = "qcom/hexagon-v68"


@dataclass(frozen=True)
class Measurement:
    """Seconds of a [rows, K] x [K, N] product by rows, and of the smallest kernel.

    ``streamed_s`` are those of a ``STREAMED`` product; None where packets were counted, which know no memory.
    """

    seconds: dict[int, float]
    smallest_s: float
    streamed_s: float | None

    @property
    def counted(self) -> str:
        """What the seconds are."""
        return "packets / clock" if self.streamed_s is None else "wall time of calls"


def measure_device(device: str, clock_hz: float) -> Measurement:
    """Build, run and time the kernels on ``device`` (qemu, host or tracker://host:port/key).

    ``clock_hz`` turns packets into seconds where the device counts them. Raises DeviceError, ToolchainError.
    """
    kind: ServerKind = "host" if device == "host" else "qemu"
    shapes = {str(m): (m, K, N) for m in ROWS} | {"small": _SMALL, "streamed": STREAMED}
    target = host_target() if kind == "host" else hexagon_target(_TARGET).llvm_target()
    contexts = hexagon_target(_TARGET).contexts if kind == "qemu" else 1
    kernels = {
        _kernel(name): linear_w8a8(m, k, n, hvx=kind == "qemu", name=_kernel(name), contexts=contexts)
        for name, (m, k, n) in shapes.items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        compiled, server = Path(scratch) / "kernels.o", Path(scratch) / "server"
        build_object(kernels, target, compiled)
        link_server([compiled], kind, server)
        with open_session(device, server) as session:
            return _measure(session, shapes, clock_hz)


def _measure(
    session: DeviceSession, shapes: Mapping[str, tuple[int, int, int]], clock_hz: float
) -> Measurement:
    smallest, packets = _cost(session, "small", shapes["small"])
    if packets:
        counted = {m: _cost(session, str(m), shapes[str(m)])[1] / clock_hz for m in ROWS}
        return Measurement(counted, packets / clock_hz, None)
    timed = {m: _cost(session, str(m), shapes[str(m)])[0] for m in ROWS}
    return Measurement(timed, smallest, _cost(session, "streamed", shapes["streamed"])[0])


def _kernel(name: str) -> str:
    return f"profile_{name}"


def _cost(session: DeviceSession, name: str, shape: tuple[int, int, int]) -> tuple[float, int]:
    """Least wall seconds, and packets, of a call."""
    m, k, n = shape
    x = session.upload(np.ones((m, k), np.int8))
    w = session.upload(np.full(packed_shape(k, n), 129, np.uint8))
    y = session.empty((m, n), "int32")
    seconds: list[float] = []
    packets = 0
    while not packets and (len(seconds) < _REPEATS or sum(seconds) < _TIMED_S):  # packets are always the same
        begin = time.perf_counter()
        packets = session.call(_kernel(name), x, w, y).packets
        seconds.append(time.perf_counter() - begin)
    if not np.all(session.download(y) == k):
        raise MllmTvmError(
            f"kernel {_kernel(name)} gives wrong results on this device: no profile can be made of it"
        )
    return min(seconds), packets


def measured_profile(base: DeviceProfile, found: Measurement, name: str) -> DeviceProfile:
    """``base`` with the figures that were measured.

    Raises SimulationError when a call took no longer than an empty one.
    """
    timed = found.streamed_s is not None
    launch = found.smallest_s if timed else 0.0
    rates = {m: m * K * N / _work_s(seconds, launch, f"{m} rows") for m, seconds in found.seconds.items()}
    best = max(rates.values())
    npu = replace(
        base.npu,
        int8_macs_per_s=_round(best),
        chunk_efficiency={str(m): _round(rate / best) for m, rate in rates.items()},
    )
    if found.streamed_s is not None:
        _, k, n = STREAMED
        bandwidth = _round(k * n / _work_s(found.streamed_s, launch, "one row times a large weight"))
        npu = replace(
            npu,
            bandwidth_bytes_per_s=bandwidth,
            dma_bytes_per_s=bandwidth,
            launch_s=_round(launch),
            synchronization_s=_round(launch),
        )
    about = f"NPU measured by {found.counted}; what kernels cannot show is that of {base.name}"
    return replace(base, name=name, description=about, npu=npu)


def _work_s(seconds: float, launch_s: float, what: str) -> float:
    """What a call takes beside its launch."""
    if seconds <= launch_s:
        raise SimulationError(
            f"a call of {what} took {seconds:.3g} s, no longer than an empty one ({launch_s:.3g} s): measure "
            "again while the device has nothing else to do"
        )
    return seconds - launch_s


def _round(value: float) -> float:
    return float(f"{value:.4g}")
