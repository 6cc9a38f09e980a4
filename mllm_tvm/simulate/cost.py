"""Seconds of a function on a processor of a device profile.

NPU: max(multiply-accumulates / rate, weight bytes / bandwidth), then activations in and out, float work and
integer packets on the vector units, and a launch. CPU: max(multiply-accumulates / rate, weight bytes /
bandwidth), float bytes / bandwidth, and a launch.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from .profile import DeviceProfile


@dataclass(frozen=True)
class Work:
    """What one function computes. All but the weights grow with the number of rows.

    ``io_bytes`` is what crosses between NPU and main memory, ``float_bytes`` what element-wise work reads and
    writes, ``context_macs`` the float multiply-accumulates of a row for each token it attends to.
    """

    weights: int = 0
    io_bytes: int = 0
    float_bytes: int = 0
    float_macs: int = 0
    context_macs: int = 0
    context_elements: int = 0
    """Elements of keys and values for each token that is attended to."""
    heads: int = 0
    """Attention scores of a row for each token that it attends to."""
    grouped: bool = False
    """Linears are quantized in groups along K."""
    plain_shape: bool = False
    waits: int = 0
    """Synchronizations with another processor."""
    packets: float = 0.0
    """Integer work of the NPU's vector units, in packets of a row over all contexts."""

    def __add__(self, other: Work) -> Work:
        return Work(
            self.weights + other.weights,
            self.io_bytes + other.io_bytes,
            self.float_bytes + other.float_bytes,
            self.float_macs + other.float_macs,
            self.context_macs + other.context_macs,
            self.context_elements + other.context_elements,
            self.heads + other.heads,
            self.grouped or other.grouped,
            self.plain_shape or other.plain_shape,
            self.waits + other.waits,
            self.packets + other.packets,
        )


class CostModel:
    """Turns work into seconds on one device."""

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile
        points = sorted((int(rows), share) for rows, share in profile.npu.chunk_efficiency.items())
        self._rows = [rows for rows, _ in points]
        self._shares = [share for _, share in points]

    def seconds(self, work: Work, processor: str, rows: int, context: float = 0.0) -> float:
        """Seconds of ``work`` on ``rows`` rows that attend to ``context`` tokens each on average."""
        if processor == "npu":
            return self._npu(work, rows, context)
        return self._cpu(work, rows, context)

    def chunk_efficiency(self, rows: int) -> float:
        """Share of the NPU's integer rate that ``rows`` rows reach."""
        index = bisect_left(self._rows, rows)
        if index == len(self._rows):
            return self._shares[-1]
        if index == 0:
            return self._shares[0] * rows / self._rows[0]
        low, high = self._rows[index - 1], self._rows[index]
        part = (rows - low) / (high - low)
        return self._shares[index - 1] + part * (self._shares[index] - self._shares[index - 1])

    def _npu(self, work: Work, rows: int, context: float) -> float:
        npu = self.profile.npu
        compute = rows * work.weights / (npu.int8_macs_per_s * self.chunk_efficiency(rows))
        linear = max(compute, work.weights / npu.bandwidth_bytes_per_s)
        linear *= npu.plain_shape_slowdown if work.plain_shape else 1.0
        linear *= npu.grouped_slowdown if work.grouped else 1.0
        attended = context + (rows - 1) / 2  # by the last row: products compute as much for every row
        elements = (work.context_elements + rows * work.heads) * attended
        floats = elements * npu.float_s_per_element
        transfer = rows * work.io_bytes / npu.dma_bytes_per_s
        vector = rows * work.float_bytes / npu.vector_bytes_per_s
        vector += rows * work.packets / (npu.contexts * npu.clock_hz)
        return linear + floats + transfer + vector + npu.launch_s + work.waits * npu.synchronization_s

    def _cpu(self, work: Work, rows: int, context: float) -> float:
        cpu = self.profile.cpu
        compute = rows * work.weights / cpu.int8_macs_per_s
        linear = max(compute, work.weights / cpu.bandwidth_bytes_per_s)
        macs = rows * (work.float_macs + work.context_macs * context)
        elementwise = rows * work.float_bytes / cpu.bandwidth_bytes_per_s
        return linear + macs / cpu.float_macs_per_s + elementwise + cpu.launch_s
