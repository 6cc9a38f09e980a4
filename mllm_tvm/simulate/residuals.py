"""How far the simulation is from what the paper prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean

from . import paper
from .configuration import ABLATION, CPU_ONLY, PAPER, Configuration
from .decode import decode_seconds
from .models import find_model
from .prefill import simulate_prefill
from .profile import DeviceProfile

Errors = dict[tuple[str, str], float]

ANCHORS = (("qwen1.5-1.8b", "2wikimqa"), ("llama-2-7b", "persona-chat"))
"""The two end-to-end cells that a constant is fitted on."""
BUBBLE_MODEL, BUBBLE_PROMPT = "qwen1.5-1.8b", 1024


def matmul_seconds(profile: DeviceProfile, row: paper.MatmulRow) -> float:
    """A stand-alone int8 product on the NPU: weights streamed, int8 in and int32 out moved, one launch."""
    npu = profile.npu
    moved = row.m * (row.k + 4 * row.n)
    return row.k * row.n / npu.bandwidth_bytes_per_s + moved / npu.dma_bytes_per_s + npu.launch_s


def policy_bubble(profile: DeviceProfile, policy: str) -> float:
    """The NPU's idle share when the paper's configuration runs under a policy: Qwen1.5-1.8B, prompt 1024."""
    configuration = replace(PAPER, policy=policy)
    return simulate_prefill(find_model(BUBBLE_MODEL), configuration, profile, BUBBLE_PROMPT).bubble


def simulated_cell(
    profile: DeviceProfile, cell: paper.PrefillCell, configuration: Configuration = PAPER
) -> float:
    """Prefill seconds of a configuration, the mean over the cell's prompts."""
    model = find_model(cell.model)
    return cell.simulated(lambda prompt: simulate_prefill(model, configuration, profile, prompt).seconds)


def ablation_speeds(profile: DeviceProfile, model: str) -> list[float]:
    """Tokens a second of the paper's steps at prompt 512."""
    shape = find_model(model)
    runs = [simulate_prefill(shape, step, profile, paper.ABLATION_PROMPT) for step in ABLATION]
    return [run.tokens_per_s for run in runs]


@dataclass(frozen=True)
class Residuals:
    """Relative errors; by model and data set where not said otherwise."""

    matmuls: tuple[float, ...]
    prefills: Errors
    ablation: dict[str, list[float]]
    """Simulated tokens a second."""
    further: Errors
    """Prefills of the other data sets; this and what follows was not fitted and has no target."""
    llama_cpp: Errors
    decodes: Errors

    @property
    def prefill_error(self) -> float:
        """Mean absolute error of all end-to-end cells."""
        return mean_absolute(self.prefills.values())

    @property
    def consistent_prefill_error(self) -> float:
        """The same without the cells that contradict the paper's own figures."""
        return mean_absolute(e for cell, e in self.prefills.items() if cell not in paper.CONTRADICTED)

    @property
    def unfitted_prefill_error(self) -> float:
        """The same without the two cells that a constant was fitted on."""
        return mean_absolute(e for cell, e in self.prefills.items() if cell not in ANCHORS)

    @property
    def step_error(self) -> float:
        """Mean absolute error of the ratios from step to step of the ablation."""
        return mean_absolute(e for model in self.ablation for e in self.step_errors(model))

    def step_errors(self, model: str) -> list[float]:
        """Relative errors of one model's ratios from step to step."""
        found, printed = _ratios(self.ablation[model]), _ratios(paper.ABLATION[model])
        return [a / b - 1 for a, b in zip(found, printed, strict=True)]


def residuals(profile: DeviceProfile) -> Residuals:
    """Simulates the paper's cells."""
    return Residuals(
        tuple(matmul_seconds(profile, r) / (r.npu_int8_ms / 1e3) - 1 for r in paper.MATMULS),
        _prefill_errors(profile, paper.PREFILLS, PAPER),
        {name: ablation_speeds(profile, name) for name in paper.ABLATION},
        _prefill_errors(profile, paper.FURTHER_PREFILLS, PAPER),
        _prefill_errors(profile, paper.LLAMA_CPP, CPU_ONLY),
        _decode_errors(profile),
    )


def _prefill_errors(
    profile: DeviceProfile, cells: Iterable[paper.PrefillCell], configuration: Configuration
) -> Errors:
    return {(c.model, c.data): simulated_cell(profile, c, configuration) / c.seconds - 1 for c in cells}


def _decode_errors(profile: DeviceProfile) -> Errors:
    errors = {}
    for cell in paper.DECODES:
        prompt, tokens = (cell.shortest + cell.longest) // 2, paper.DECODED[cell.data]
        found = decode_seconds(find_model(cell.model), profile, "cpu", prompt, tokens)
        errors[cell.model, cell.data] = found / cell.seconds - 1
    return errors


def mean_absolute(errors: Iterable[float]) -> float:
    """The mean of the errors' sizes."""
    return mean(abs(error) for error in errors)


def _ratios(speeds: Sequence[float]) -> list[float]:
    return [after / before for before, after in pairwise(speeds)]
