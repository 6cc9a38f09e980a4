"""Seconds of an artifact's functions on a device profile: what drives the engine's virtual clock."""

from __future__ import annotations

from mllm_tvm.manifest import FunctionSpec

from .cost import CostModel, Work
from .profile import DeviceProfile, load_profile
from .program import mlp_packets

MEASURED_PROFILE = "qemu-hvx"
"""The profile whose NPU figures are packets counted of this project's own kernels."""

# Bytes that a float function reads and writes for one element of the residual stream, in one fused pass.
_FLOAT_BYTES = {"float": 17, "shadow": 12, "dynamic": 13}
# The same of the activation inside an integer MLP on the CPU: two sums and a byte.
_GATE_BYTES = 9


class FunctionDurations:
    """Expected seconds of a compiled function; a drop-in for the engine's own measurements.

    A manifest gives a linear's size, and of a float function only its kind: its work is taken to be that of
    a norm, a shadow or an attention as wide as the residual stream, over a context as long as its rows.
    """

    def __init__(self, profile: DeviceProfile, hidden_size: int) -> None:
        self._cost = CostModel(profile)
        self._hidden = hidden_size

    def __call__(self, function: FunctionSpec, processor: str, rows: int) -> float:
        """Seconds of ``function`` on ``rows`` rows on a processor of the profile."""
        return self._cost.seconds(self._work(function, processor), processor, rows, context=rows)

    def _work(self, function: FunctionSpec, processor: str) -> Work:
        if function.weights and processor == "npu":
            transfer = function.input_bytes + 4 * function.n
            return Work(function.weights, transfer, packets=_packets(function))
        if function.weights:
            return Work(function.weights, float_bytes=_GATE_BYTES * function.channels)
        macs = 2 * self._hidden if function.kind == "dynamic" else 0
        return Work(float_bytes=_FLOAT_BYTES[function.kind] * self._hidden, context_macs=macs)


def _packets(function: FunctionSpec) -> float:
    """Of an MLP without outliers: how many there are is not known before a prompt."""
    return mlp_packets(function.k, function.channels, function.n) if function.kind == "mlp" else 0.0


def measured_durations(hidden_size: int) -> FunctionDurations:
    """Seconds by the packets of the simulated device: the planner's costs where no other profile is given."""
    return FunctionDurations(load_profile(MEASURED_PROFILE), hidden_size)
