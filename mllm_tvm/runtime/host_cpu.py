"""Whether this machine's CPU can run a library that was compiled for another one."""

from __future__ import annotations

import tvm
from tvm.target.codegen import llvm_get_cpu_features, llvm_get_system_cpu

from mllm_tvm.errors import ArtifactError

# LLVM's feature lists also hold tuning hints, which any CPU survives.
_INSTRUCTION_SETS = (
    "sse",
    "avx",
    "fma",
    "f16c",
    "bmi",
    "popcnt",
    "neon",
    "sve",
    "dotprod",
    "i8mm",
    "fullfp16",
)


def check_host_cpu(compiled_for: str, machine: str | None = None) -> None:
    """Raise ArtifactError when ``machine`` (default: this one) lacks instructions of ``compiled_for``.

    Both are LLVM CPU names. Without the check the process would die of an illegal instruction.
    """
    here = machine or llvm_get_system_cpu()
    missing = (
        sorted(_instruction_sets(compiled_for) - _instruction_sets(here)) if here != compiled_for else []
    )
    if missing:
        raise ArtifactError(
            f"the artifact was compiled for the CPU {compiled_for}; this machine's {here} lacks "
            f"{', '.join(missing)}: compile the model again on this machine"
        )


def _instruction_sets(cpu: str) -> set[str]:
    features = llvm_get_cpu_features(tvm.target.Target({"kind": "llvm", "mcpu": cpu}))
    return {str(feature) for feature in features if str(feature).startswith(_INSTRUCTION_SETS)}
