"""The CPU target."""

from __future__ import annotations

import pytest
import tvm

from targets.cpu.target import cpu_target, has_vnni
from targets.errors import TargetError


def test_the_default_is_this_machine() -> None:
    target = cpu_target()
    assert target.attrs["mcpu"] == tvm.target.codegen.llvm_get_system_cpu()
    assert target.attrs["num-cores"] >= 1


@pytest.mark.parametrize("name", ["native", "", "pentium-9"])
def test_a_cpu_llvm_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(TargetError, match="expected an LLVM CPU name"):
        cpu_target(name)


def test_vnni_is_a_feature_of_the_named_cpu() -> None:
    assert has_vnni(cpu_target("icelake-server"))
    assert not has_vnni(cpu_target("skylake-avx512"))
    assert not has_vnni(cpu_target("x86-64-v3"))
