"""The text that the fit prints: constants, residuals of the targets, cells that nothing was fitted on."""

from __future__ import annotations

from collections.abc import Mapping

from . import paper
from .configuration import PAPER
from .models import find_model
from .prefill import simulate_prefill
from .profile import DeviceProfile
from .residuals import ANCHORS, Errors, Residuals, mean_absolute, policy_bubble


def fit_report(
    profile: DeviceProfile, found: Residuals, values: Mapping[str, float], ships: Mapping[str, float]
) -> str:
    """The report on a fitted profile: its constants ``values`` beside those of the profile that ships."""
    lines = ["Fitted constants (the profile that ships in parentheses):"]
    lines += [f"  {name:28} {value:.4g} ({ships[name]:.4g})" for name, value in values.items()]
    lines.append("Table 3, NPU INT8: " + " ".join(f"{error:+.0%}" for error in found.matmuls))
    lines += [*_prefills(found), *_ablation(found)]
    bubbles = [f"{policy} {policy_bubble(profile, policy):.1%}" for policy in ("in-order", "paper", "ours")]
    lines.append("NPU idle, Qwen1.5-1.8B, prompt 1024: " + ", ".join(bubbles))
    return "\n".join([*lines, *_not_fitted(profile, found)])


def _prefills(found: Residuals) -> list[str]:
    lines = ["End to end, simulated over printed (* fitted on, ! contradicts the paper's own speeds):"]
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
    return lines


def _ablation(found: Residuals) -> list[str]:
    lines = ["Ablation, prompt 512, tokens/s (printed), and errors of the steps' ratios; none fitted:"]
    for name, speeds in found.ablation.items():
        pairs = zip(speeds, paper.ABLATION[name], strict=True)
        cells = "  ".join(f"{ours:.0f} ({printed:.0f})" for ours, printed in pairs)
        steps = " ".join(f"{error:+.0%}" for error in found.step_errors(name))
        lines.append(f"  {name:13} {cells}   {steps}")
    lines.append(f"  mean error of the steps' ratios {found.step_error:.1%}")
    return lines


def _not_fitted(profile: DeviceProfile, found: Residuals) -> list[str]:
    """Further printed cells, none of which a constant was fitted on and no target is set for."""
    gemma, qwen = find_model("gemma-2b"), find_model("qwen1.5-1.8b")
    speeds = [
        f"{n} tokens {simulate_prefill(gemma, PAPER, profile, n).tokens_per_s:.0f} ({printed})"
        for n, printed in paper.GEMMA_SPEEDS.items()
    ]
    busy = simulate_prefill(qwen, PAPER, profile, 256).busy_s["npu"]
    return [
        "Not fitted, errors for " + ", ".join(paper.MODELS) + ":",
        *_rows("end to end", found.further),
        *_rows("llama.cpp on the CPU", found.llama_cpp),
        *_rows("decode on the CPU", found.decodes),
        "  Gemma-2B tokens/s by prompt (printed): " + ", ".join(speeds),
        f"  NPU time of Qwen1.5-1.8B at 256 tokens: {busy:.3f} s ({paper.QWEN_256_NPU_S} s)",
    ]


def _rows(title: str, errors: Errors) -> list[str]:
    lines = [f"  {title}: mean absolute error {mean_absolute(errors.values()):.1%}"]
    for data in dict.fromkeys(data for _, data in errors):
        cells = " ".join(f"{errors[model, data]:+5.0%}" for model in paper.MODELS)
        lines.append(f"    {data:16} {cells}")
    return lines
