"""Measures a device's integer kernels through a device session, into a device profile.

Kernels of several row counts give the integer rate and the chunk-length efficiency. An emulator counts
packets, and its wall time means nothing: there seconds are packets / clock, and bandwidth and launch time
stay the base profile's. On other devices calls are timed; the smallest kernel gives the launch time and
single-row products of a large weight the bandwidth. What no kernel can show (CPU, power, memory) stays the
base profile's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from targets.errors import MllmTvmError
from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.session import DeviceSession, open_session
from targets.hexagon.target import hexagon_target, host_target
from targets.hexagon.toolchain import ServerKind, link_server
from targets.packing import packed_shape

from .profile import DeviceProfile

ROWS = (1, 4, 16, 64, 256)
K, N = 1024, 1024
_SMALL = (1, 32, 32)
_REPEATS = 5
_TARGET = "qcom/hexagon-v68"


@dataclass(frozen=True)
class Measurement:
    """Seconds of a [rows, K] x [K, N] product by rows, and of the smallest kernel; how they were counted."""

    seconds: dict[int, float]
    smallest_s: float
    by_packets: bool


def measure_device(device: str, clock_hz: float) -> Measurement:
    """Build, run and time the kernels on ``device`` (qemu, host or tracker://host:port/key).

    ``clock_hz`` turns packets into seconds where the device counts them. Raises DeviceError, ToolchainError.
    """
    kind: ServerKind = "host" if device == "host" else "qemu"
    shapes = {f"profile_m{m}": (m, K, N) for m in ROWS} | {"profile_small": _SMALL}
    target = host_target() if kind == "host" else hexagon_target(_TARGET).llvm_target()
    contexts = hexagon_target(_TARGET).contexts if kind == "qemu" else 1
    kernels = {
        name: linear_w8a8(m, k, n, hvx=kind == "qemu", name=name, contexts=contexts)
        for name, (m, k, n) in shapes.items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        compiled, server = Path(scratch) / "kernels.o", Path(scratch) / "server"
        build_object(kernels, target, compiled)
        link_server([compiled], kind, server)
        with open_session(device, server) as session:
            costs = {name: _cost(session, name, shape) for name, shape in shapes.items()}
    by_packets = costs["profile_small"][1] > 0
    seconds = {name: packets / clock_hz if by_packets else wall for name, (wall, packets) in costs.items()}
    return Measurement({m: seconds[f"profile_m{m}"] for m in ROWS}, seconds["profile_small"], by_packets)


def _cost(session: DeviceSession, name: str, shape: tuple[int, int, int]) -> tuple[float, int]:
    """Least wall seconds, and packets, of a call."""
    m, k, n = shape
    x = session.upload(np.ones((m, k), np.int8))
    w = session.upload(np.full(packed_shape(k, n), 129, np.uint8))
    y = session.empty((m, n), "int32")
    best, packets, calls = float("inf"), 0, 0
    while not packets and calls < _REPEATS:  # packets are the same each time
        begin = time.perf_counter()
        packets = session.call(name, x, w, y).packets
        best, calls = min(best, time.perf_counter() - begin), calls + 1
    if not np.all(session.download(y) == k):
        raise MllmTvmError(f"kernel {name} gives wrong results on this device: no profile can be made of it")
    return best, packets


def measured_profile(base: DeviceProfile, found: Measurement, name: str) -> DeviceProfile:
    """``base`` with the figures that were measured."""
    launch = base.npu.launch_s if found.by_packets else found.smallest_s
    work = {m: max(s - (0.0 if found.by_packets else launch), 1e-9) for m, s in found.seconds.items()}
    rates = {m: m * K * N / s for m, s in work.items()}
    best = max(rates.values())
    npu = replace(
        base.npu,
        int8_macs_per_s=_round(best),
        launch_s=_round(launch),
        synchronization_s=_round(launch),
        chunk_efficiency={str(m): _round(rate / best) for m, rate in rates.items()},
    )
    if not found.by_packets:
        bandwidth = _round(K * N / work[1])
        npu = replace(npu, bandwidth_bytes_per_s=bandwidth, dma_bytes_per_s=bandwidth)
    return replace(base, name=name, description=f"measured; figures left to {base.name} are its own", npu=npu)


def profile_text(profile: DeviceProfile, about: str) -> str:
    """The profile as TOML, with ``about`` as a comment on top."""
    data = asdict(profile)
    efficiency = data["npu"].pop("chunk_efficiency")
    lines = [f"# {about}", *_figures({k: v for k, v in data.items() if not isinstance(v, dict)})]
    lines += ["", "[npu]", *_figures(data["npu"]), "", "[npu.chunk_efficiency]", *_figures(efficiency)]
    return "\n".join([*lines, "", "[cpu]", *_figures(data["cpu"])]) + "\n"


def _figures(values: Mapping[str, object]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in values.items()]


def _toml(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
