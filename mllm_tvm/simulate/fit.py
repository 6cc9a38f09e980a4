"""Fits the Snapdragon 8 Gen 3 profile to the paper: ``python -m mllm_tvm.simulate.fit``.

Six constants are fitted, in this order:

1. NPU bandwidth and 2. launch time: Table 3, NPU INT8.
3. CPU integer rate: Table 3, CPU INT8.
4. NPU float pace: Table 3, NPU FP16.
5. CPU float rate: in-order execution leaves the NPU idle for 37 % (Qwen1.5-1.8B, prompt 1024).
6. Set-up of a prefill: two end-to-end cells (``ANCHORS``).

Everything else in the profile is published, derived from these or assumed; the profile says which. No cell
of the ablation is fitted. The residuals of what was fitted and of what was not are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import exp, log
from statistics import mean

from . import paper
from .fit_report import fit_report
from .models import find_model
from .profile import DeviceProfile, load_profile
from .residuals import ANCHORS, matmul_seconds, policy_bubble, residuals, simulated_cell

FITTED = (
    "npu.bandwidth_bytes_per_s",
    "npu.launch_s",
    "npu.float_s_per_element",
    "cpu.int8_macs_per_s",
    "cpu.float_macs_per_s",
    "cpu.setup_s_per_channel",
)


def fit(profile: DeviceProfile) -> DeviceProfile:
    """``profile`` with the fitted constants and what is derived from them."""
    return _fit_setup(_fit_float_rate(_fit_matmuls(profile)))


def fitted_values(profile: DeviceProfile) -> dict[str, float]:
    """The six constants of a profile."""
    return {name: getattr(getattr(profile, name.split(".")[0]), name.split(".")[1]) for name in FITTED}


def _fit_matmuls(profile: DeviceProfile) -> DeviceProfile:
    """Bandwidth and launch by relative least squares, the rates by the geometric mean.

    In float, 32 and 64 rows take as long: what counts is the second operand, 54 to 69 ns an element.
    """

    def error(trial: DeviceProfile) -> float:
        return sum((matmul_seconds(trial, r) / (r.npu_int8_ms / 1e3) - 1) ** 2 for r in paper.MATMULS)

    trials = (
        _with_npu(profile, _round(gigabytes * 1e9), _round(microseconds * 1e-6))
        for gigabytes in _range(10.0, 25.0, 0.1)
        for microseconds in _range(100.0, 1000.0, 10.0)
    )
    profile = min(trials, key=error)
    rate = _geometric_mean(r.m * r.k * r.n / (r.cpu_int8_ms / 1e3) for r in paper.MATMULS)
    pace = _geometric_mean(r.npu_fp16_ms / 1e3 / (r.k * r.n) for r in paper.MATMULS)
    npu = replace(profile.npu, float_s_per_element=_round(pace))
    return replace(profile, npu=npu, cpu=replace(profile.cpu, int8_macs_per_s=_round(rate)))


def _with_npu(profile: DeviceProfile, bandwidth: float, launch_s: float) -> DeviceProfile:
    """Derived: chunks of 256 are the shortest that keep the integer units busy, which is why the paper
    chose them, so there compute and weight streaming take the same time; waiting for the other processor
    is one more round trip."""
    rate = paper.CHUNK_LENGTH * bandwidth
    npu = replace(profile.npu, bandwidth_bytes_per_s=bandwidth, int8_macs_per_s=rate)
    return replace(profile, npu=replace(npu, launch_s=launch_s, synchronization_s=launch_s))


def _fit_float_rate(profile: DeviceProfile) -> DeviceProfile:
    def with_rate(rate: float) -> DeviceProfile:
        return replace(profile, cpu=replace(profile.cpu, float_macs_per_s=_round(rate)))

    def excess(rate: float) -> float:
        return policy_bubble(with_rate(rate), "in-order") - paper.IN_ORDER_BUBBLE

    return with_rate(_bisect(excess, 5e10, 2e12))


def _fit_setup(profile: DeviceProfile) -> DeviceProfile:
    """Least squares of the relative errors of the two anchors; set-up is in addition to everything else."""
    anchors = [cell for cell in paper.PREFILLS if (cell.model, cell.data) in ANCHORS]
    above = below = 0.0
    for cell in anchors:
        model = find_model(cell.model)
        channels = model.layers * model.hidden
        missing = cell.seconds - simulated_cell(_with_setup(profile, 0.0), cell)
        above += missing * channels / cell.seconds**2
        below += channels**2 / cell.seconds**2
    return _with_setup(profile, _round(above / below))


def _with_setup(profile: DeviceProfile, seconds: float) -> DeviceProfile:
    return replace(profile, cpu=replace(profile.cpu, setup_s_per_channel=seconds))


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """The zero of a monotone function between two positive numbers, by halving their ratio."""
    rising = function(high) > 0
    for _ in range(16):
        middle = exp((log(low) + log(high)) / 2)
        if (function(middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return exp((log(low) + log(high)) / 2)


def _range(first: float, last: float, step: float) -> list[float]:
    return [first + i * step for i in range(round((last - first) / step) + 1)]


def _geometric_mean(values: Iterable[float]) -> float:
    return exp(mean(log(value) for value in values))


def _round(value: float) -> float:
    """Three significant digits: more would claim a precision that the data does not have."""
    return float(f"{value:.3g}")


def main() -> int:
    """Prints the fit and its residuals; exit code 1 when the profile that ships is another."""
    shipped = load_profile(paper.DEVICE)
    fitted = fit(shipped)
    print(fit_report(fitted, residuals(fitted), fitted_values(fitted), fitted_values(shipped)))
    return 0 if fitted == shipped else 1


if __name__ == "__main__":
    sys.exit(main())
