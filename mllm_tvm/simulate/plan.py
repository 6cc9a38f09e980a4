"""Plans: a searched configuration as a JSON file that ``mllm-tvm compile --plan`` reads.

``placement`` names the compiler's kinds of functions: ``linear``, ``mlp`` (a gated MLP as one integer
function), ``shadow``, ``float`` and ``dynamic``. The NPU runs linears; it also runs MLPs, or these are not
fused.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_tvm.report.write import write_text
from mllm_tvm.runtime.policies import find_policy

from .errors import SimulationError
from .search import SearchResult

SCHEMA_VERSION = 2
_FIXED = {"linear": "npu", "shadow": "cpu", "float": "cpu", "dynamic": "cpu"}


@dataclass(frozen=True)
class Plan:
    """What to compile for a device."""

    model: str
    profile: str
    chunk_lengths: tuple[int, ...]
    pruned_share: float
    fuse_mlp: bool
    """Gated MLPs are one NPU function."""
    policy: str


def write_plan(path: str | os.PathLike[str], result: SearchResult, model: str, profile: str) -> None:
    """Writes the plan of a search. Raises ReportError when it cannot be written."""
    found = result.configuration
    data = {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "profile": profile,
        "chunk_lengths": list(found.chunk_lengths),
        "pruned_share": found.pruned_share,
        "placement": {**_FIXED, "mlp": found.placement.activation},
        "policy": found.policy,
        "mean_prefill_s": result.seconds,
    }
    write_text(Path(path), json.dumps(data, indent=1) + "\n")


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in a file; raises SimulationError naming what is missing, wrong or cannot be compiled."""
    try:
        data = json.loads(Path(path).read_text("utf-8"))
        version = data["schema_version"]
        if version != SCHEMA_VERSION:
            raise SimulationError(f"plan {path} has schema_version {version!r}, expected {SCHEMA_VERSION}")
        plan = Plan(
            str(data["model"]),
            str(data["profile"]),
            tuple(_typed(length, int) for length in data["chunk_lengths"]),
            _typed(data["pruned_share"], int, float),
            _fuses_mlp(dict(data["placement"]), path),
            str(data["policy"]),
        )
    except OSError as error:
        raise SimulationError(f"plan {path} cannot be read: {error}") from error
    except KeyError as error:
        raise SimulationError(f"plan {path} has no {error}: make it again with simulate --search") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise SimulationError(f"plan {path} is damaged ({error}): make it again") from error
    return _checked(plan, path)


def _typed(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise TypeError(f"{value!r} is no number that fits here")
    return value


def _checked(plan: Plan, path: str | os.PathLike[str]) -> Plan:
    if not plan.chunk_lengths or min(plan.chunk_lengths) < 1:
        raise SimulationError(f"plan {path}: chunk lengths {plan.chunk_lengths}, expected positive numbers")
    if not 0.0 <= plan.pruned_share <= 1.0:
        raise SimulationError(f"plan {path}: pruned share {plan.pruned_share}, expected 0 to 1")
    find_policy(plan.policy)
    return plan


def _fuses_mlp(placement: dict[str, str], path: str | os.PathLike[str]) -> bool:
    """Whether MLPs are on the NPU; raises SimulationError for a placement the compiler does not know."""
    choices = [{**_FIXED, "mlp": processor} for processor in ("cpu", "npu")]
    if placement not in choices:
        raise SimulationError(
            f"plan {path} places {placement}; what the compiler can do is {choices[0]}, and mlp on the npu"
        )
    return placement["mlp"] == "npu"
