"""Fits the Snapdragon 8 Gen 3 profile to the paper: ``python -m mllm_tvm.simulate.fit``.

Six constants are fitted, in this order:

1. NPU bandwidth and 2. launch time: Table 3, NPU INT8.
3. CPU integer rate: Table 3, CPU INT8.
4. CPU float rate: in-order execution leaves the NPU idle for 37 % (Qwen1.5-1.8B, prompt 1024).
5. Set-up of a prefill: two end-to-end cells (``ANCHORS``).
6. What quantization in groups costs: the ablation's steps.

Everything else in the profile is published, derived from these or assumed; the profile says which. The
residuals of what was fitted and of what was not are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import exp, log
from statistics import mean

from . import paper
from .configuration import ABLATION, CPU_ONLY, PAPER, Configuration
from .decode import decode_seconds
from .models import find_model
from .prefill import simulate_prefill
from .profile import DeviceProfile, load_profile

ANCHORS = (("qwen1.5-1.8b", "2wikimqa"), ("llama-2-7b", "persona-chat"))
FITTED = (
    "npu.bandwidth_bytes_per_s",
    "npu.launch_s",
    "cpu.int8_macs_per_s",
    "cpu.float_macs_per_s",
    "cpu.setup_s_per_channel",
    "npu.grouped_s_per_input",
)


def fit(profile: DeviceProfile) -> DeviceProfile:
    """``profile`` with the fitted constants and what is derived from them."""
    profile = _fit_matmuls(profile)
    profile = _fit_float_rate(profile)
    profile = _fit_setup(profile)
    return _fit_grouped(profile)


def fitted_values(profile: DeviceProfile) -> dict[str, float]:
    """The six constants of a profile."""
    return {name: getattr(getattr(profile, name.split(".")[0]), name.split(".")[1]) for name in FITTED}


def matmul_seconds(profile: DeviceProfile, row: paper.MatmulRow) -> float:
    """A stand-alone int8 product on the NPU: weights streamed, int8 in and int32 out moved, one launch."""
    npu = profile.npu
    moved = row.m * (row.k + 4 * row.n)
    return row.k * row.n / npu.bandwidth_bytes_per_s + moved / npu.dma_bytes_per_s + npu.launch_s


def _fit_matmuls(profile: DeviceProfile) -> DeviceProfile:
    """Bandwidth and launch by relative least squares, the CPU rate by the geometric mean."""

    def error(trial: DeviceProfile) -> float:
        return sum((matmul_seconds(trial, r) / (r.npu_int8_ms / 1e3) - 1) ** 2 for r in paper.MATMULS)

    trials = (
        _with_npu(profile, _round(gigabytes * 1e9), _round(microseconds * 1e-6))
        for gigabytes in _range(10.0, 25.0, 0.1)
        for microseconds in _range(100.0, 1000.0, 10.0)
    )
    profile = min(trials, key=error)
    rate = _geometric_mean(r.m * r.k * r.n / (r.cpu_int8_ms / 1e3) for r in paper.MATMULS)
    return replace(profile, cpu=replace(profile.cpu, int8_macs_per_s=_round(rate)))


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
        return in_order_bubble(with_rate(rate)) - paper.IN_ORDER_BUBBLE

    return with_rate(_bisect(excess, 5e10, 2e12))


def in_order_bubble(profile: DeviceProfile) -> float:
    """The NPU's idle share when the paper's configuration runs in order."""
    return policy_bubble(profile, "in-order")


def policy_bubble(profile: DeviceProfile, policy: str) -> float:
    """The NPU's idle share under a policy: Qwen1.5-1.8B, prompt 1024."""
    configuration = replace(PAPER, policy=policy)
    return simulate_prefill(find_model("qwen1.5-1.8b"), configuration, profile, 1024).bubble


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


def simulated_cell(
    profile: DeviceProfile, cell: paper.PrefillCell, configuration: Configuration = PAPER
) -> float:
    """Prefill seconds of a configuration, the mean over the cell's prompts."""
    model = find_model(cell.model)
    return cell.simulated(lambda prompt: simulate_prefill(model, configuration, profile, prompt).seconds)


def _fit_grouped(profile: DeviceProfile) -> DeviceProfile:
    """The cost with the least mean error of the steps' ratios."""

    def with_cost(nanoseconds: float) -> DeviceProfile:
        return replace(profile, npu=replace(profile.npu, grouped_s_per_input=_round(nanoseconds * 1e-9)))

    def error(trial: DeviceProfile) -> float:
        speeds = {name: ablation_speeds(trial, name) for name in paper.ABLATION}
        return mean(abs(e) for e in Residuals((), {}, speeds).step_errors)

    return min((with_cost(nanoseconds) for nanoseconds in _range(24.0, 44.0, 2.0)), key=error)


def ablation_speeds(profile: DeviceProfile, model: str, steps: Iterable[int] = range(5)) -> list[float]:
    """Tokens a second of the paper's steps at prompt 512."""
    shape = find_model(model)
    runs = [simulate_prefill(shape, ABLATION[step], profile, paper.ABLATION_PROMPT) for step in steps]
    return [run.tokens_per_s for run in runs]


@dataclass(frozen=True)
class Residuals:
    """How far the simulation is from the paper; relative errors."""

    matmuls: tuple[float, ...]
    prefills: dict[tuple[str, str], float]
    ablation: dict[str, list[float]]
    """Simulated tokens a second."""

    @property
    def prefill_error(self) -> float:
        """Mean absolute error of all end-to-end cells."""
        return mean(abs(error) for error in self.prefills.values())

    @property
    def consistent_prefill_error(self) -> float:
        """The same without the cells that contradict the paper's own figures."""
        return mean(abs(e) for cell, e in self.prefills.items() if cell not in paper.CONTRADICTED)

    @property
    def unfitted_prefill_error(self) -> float:
        """The same without the two cells that a constant was fitted on."""
        return mean(abs(e) for cell, e in self.prefills.items() if cell not in ANCHORS)

    @property
    def step_errors(self) -> list[float]:
        """Relative errors of the ratios from step to step of the ablation."""
        return self._step_errors(self.ablation)

    @property
    def consistent_step_errors(self) -> list[float]:
        """The same without the model whose end-to-end cells contradict its ablation."""
        contradicted = {model for model, _ in paper.CONTRADICTED}
        return self._step_errors(set(self.ablation) - contradicted)

    def _step_errors(self, models: Iterable[str]) -> list[float]:
        return [
            self.ablation[name][i + 1]
            / self.ablation[name][i]
            / (paper.ABLATION[name][i + 1] / paper.ABLATION[name][i])
            - 1
            for name in models
            for i in range(4)
        ]


def residuals(profile: DeviceProfile) -> Residuals:
    """Simulates all cells."""
    return Residuals(
        tuple(matmul_seconds(profile, r) / (r.npu_int8_ms / 1e3) - 1 for r in paper.MATMULS),
        {(c.model, c.data): simulated_cell(profile, c) / c.seconds - 1 for c in paper.PREFILLS},
        {name: ablation_speeds(profile, name) for name in paper.ABLATION},
    )


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


def _report(profile: DeviceProfile, shipped: DeviceProfile) -> str:
    found = residuals(profile)
    lines = ["Fitted constants (the profile that ships in parentheses):"]
    ships = fitted_values(shipped)
    lines += [
        f"  {name:28} {value:.4g} ({ships[name]:.4g})" for name, value in fitted_values(profile).items()
    ]
    lines.append("Table 3, NPU INT8: " + " ".join(f"{error:+.0%}" for error in found.matmuls))
    lines.append("End to end, simulated over printed (* fitted on, ! contradicts the paper's own speeds):")
    for cell in paper.PREFILLS:
        key = (cell.model, cell.data)
        mark = "*" if key in ANCHORS else "!" if key in paper.CONTRADICTED else " "
        lines.append(
            f"  {cell.model:13} {cell.data:13} {cell.seconds:5.2f} s {found.prefills[key]:+.0%} {mark}"
        )
    lines.append(
        f"  mean absolute error {found.prefill_error:.1%}; without contradicted cells "
        f"{found.consistent_prefill_error:.1%}; without fitted cells {found.unfitted_prefill_error:.1%}"
    )
    lines.append("Ablation, prompt 512, tokens/s (printed in parentheses):")
    for name, speeds in found.ablation.items():
        pairs = zip(speeds, paper.ABLATION[name], strict=True)
        lines.append(f"  {name:13} " + "  ".join(f"{ours:.0f} ({printed:.0f})" for ours, printed in pairs))
    lines.append(
        f"  mean error of the steps' ratios {mean(abs(e) for e in found.step_errors):.1%}; without Gemma-2B, "
        f"whose 420 tokens/s contradict its 0.67 s, {mean(abs(e) for e in found.consistent_step_errors):.1%}"
    )
    lines += _not_fitted(profile)
    bubbles = [f"{policy} {policy_bubble(profile, policy):.1%}" for policy in ("in-order", "paper", "ours")]
    lines.append("NPU idle, Qwen1.5-1.8B, prompt 1024: " + ", ".join(bubbles))
    return "\n".join(lines)


def _not_fitted(profile: DeviceProfile) -> list[str]:
    """Further printed cells, none of which a constant was fitted on."""
    on_cpu = []
    for cell in paper.LLAMA_CPP:
        error = simulated_cell(profile, cell, CPU_ONLY) / cell.seconds - 1
        on_cpu.append(f"{cell.model} {error:+.0%}")
    gemma = find_model("gemma-2b")
    speeds = [
        f"{n} tokens {simulate_prefill(gemma, PAPER, profile, n).tokens_per_s:.0f} ({printed})"
        for n, printed in paper.GEMMA_SPEEDS.items()
    ]
    decodes = [
        f"{name} {decode_seconds(find_model(name), profile, 'cpu', 536, 46) / seconds - 1:+.0%}"
        for name, seconds in paper.DECODES.items()
    ]
    return [
        "Not fitted: llama.cpp on the CPU, 2wikimqa: " + ", ".join(on_cpu),
        "  Gemma-2B tokens/s by prompt (printed): " + ", ".join(speeds),
        "  decode on the CPU, 46 tokens: " + ", ".join(decodes),
    ]


def main() -> int:
    """Prints the fit and its residuals; exit code 1 when the profile that ships is another."""
    shipped = load_profile(paper.DEVICE)
    fitted = fit(shipped)
    print(_report(fitted, shipped))
    return 0 if fitted == shipped else 1


if __name__ == "__main__":
    sys.exit(main())
