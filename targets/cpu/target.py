"""The CPU the float functions and the decode step run on."""

from __future__ import annotations

import os

import tvm

from targets.errors import TargetError


def cpu_target(mcpu: str | None = None) -> tvm.target.Target:
    """The LLVM target of a CPU; ``mcpu`` is an LLVM CPU name, by default this machine's.

    Raises TargetError when LLVM does not know ``mcpu``; it would fall back to a generic CPU, 4 times slower.
    """
    name = mcpu if mcpu is not None else tvm.target.codegen.llvm_get_system_cpu()
    generic = tvm.target.Target({"kind": "llvm"})
    known = {str(cpu) for cpu in tvm.target.codegen.llvm_get_cpu_archlist(generic)}
    if name not in known:
        raise TargetError(
            f"unknown CPU {name!r}: expected an LLVM CPU name such as 'x86-64-v3' or 'icelake-server'; "
            f"leave mcpu out to use this machine's"
        )
    return tvm.target.Target({"kind": "llvm", "mcpu": name, "num-cores": os.cpu_count() or 1})


def has_vnni(target: tvm.target.Target) -> bool:
    """Whether the target has ``vpdpbusd`` on 64-byte vectors (AVX512-VNNI)."""
    return bool(tvm.target.codegen.target_has_features(["avx512vnni", "avx512bw"], target))
