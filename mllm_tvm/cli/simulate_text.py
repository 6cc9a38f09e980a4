"""What ``mllm-tvm simulate`` prints: text, and one JSON object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from mllm_tvm.report.text import speed

if TYPE_CHECKING:
    from mllm_tvm.simulate.search import SearchResult
    from mllm_tvm.simulate.summary import Summary


@dataclass(frozen=True)
class Findings:
    """What one call of the command found; ``assumptions`` are those of the energy."""

    summary: Summary
    assumptions: Sequence[str]
    steps: Sequence[Summary]
    levers: Mapping[str, float]
    searched: SearchResult | None


def findings_json(found: Findings) -> dict[str, object]:
    """The figures; seconds, joules and bytes."""
    data: dict[str, object] = asdict(found.summary)
    if found.steps:
        data["ablation"] = [asdict(step) for step in found.steps]
    if found.levers:
        data["levers"] = dict(found.levers)
    if found.searched:
        data["search"] = _search_json(found.searched)
    data["energy_assumptions"] = found.assumptions
    return data


def findings_text(found: Findings) -> str:
    """The same to read."""
    lines = _search_lines(found.searched) if found.searched else []
    lines += [title(found.summary), *(f"  {name}: {value}" for name, value in facts(found.summary).items())]
    if found.steps:
        lines += ["ablation:", *map(_step_line, found.steps)]
    if found.levers:
        lines.append("levers, each over those before it, from the paper's configuration to ours:")
        lines += [f"  x {factor:.3f}  {name}" for name, factor in found.levers.items()]
    return "\n".join([*lines, "energy model:", *(f"  {assumption}" for assumption in found.assumptions)])


def title(summary: Summary) -> str:
    """What was simulated."""
    s = summary
    return f"{s.model} on {s.profile}, prompt {s.prompt}, configuration {s.configuration}, policy {s.policy}"


def facts(summary: Summary) -> dict[str, str]:
    """The figures by name."""
    s = summary
    return {
        "prefill": f"{s.prefill_s:.3f} s, {speed(s.tokens_per_s)} tokens/s, "
        f"chunks {chunks_text(s.chunk_lengths)}",
        "lower bound": f"{s.lower_bound_s:.3f} s for any order of these tasks",
        "NPU": f"busy {s.npu_busy_s:.3f} s, idle {s.bubble:.1%} between its first and last task",
        "CPU": f"busy {s.cpu_busy_s:.3f} s",
        "energy": f"{s.energy_j:.2f} J prefill, {s.decode_energy_j:.2f} J decode",
        "peak memory": f"{s.peak_memory_bytes / 1e9:.2f} GB",
        "decode": f"{s.output} tokens in {s.decode_s:.3f} s, {s.decode_tokens_per_s:.1f} tokens/s, "
        f"linears on {s.decode_on}",
        "placement": ", ".join(f"{kind} on {processor}" for kind, processor in s.placement.items()),
    }


def chunks_text(lengths: Iterable[int]) -> str:
    """``640, 2 x 256`` for chunks of 640, 256 and 256 rows."""
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    return ", ".join(f"{count} x {length}" if count > 1 else f"{length}" for length, count in runs)


def _step_line(step: Summary) -> str:
    return (
        f"  {step.configuration:16} {step.tokens_per_s:8.1f} tokens/s {step.prefill_s:9.3f} s "
        f"{step.energy_j:9.2f} J {step.bubble:6.1%} idle {step.peak_memory_bytes / 1e9:6.2f} GB"
    )


def _search_lines(searched: SearchResult) -> list[str]:
    found = searched.configuration
    lengths = ", ".join(map(str, found.chunk_lengths))
    return [
        f"search: chunk lengths {lengths}; activations on {found.placement.activation}; "
        f"pruned share {found.pruned_share:g}; mean {searched.seconds:.3f} s; {searched.tried} simulated",
        *(
            f"  prompt {run.prompt}: {run.seconds:.3f} s, "
            f"chunks {chunks_text(chunk.length for chunk in run.chunks)}"
            for run in searched.runs
        ),
    ]


def _search_json(searched: SearchResult) -> dict[str, object]:
    found = searched.configuration
    return {
        "chunk_lengths": found.chunk_lengths,
        "pruned_share": found.pruned_share,
        "placement": asdict(found.placement),
        "mean_prefill_s": searched.seconds,
        "prefill_s": {str(run.prompt): run.seconds for run in searched.runs},
        "tried": searched.tried,
    }
