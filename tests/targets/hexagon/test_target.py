"""Hexagon target tags against TVM's own, and the LLVM targets behind them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tvm

from targets.errors import TargetError
from targets.hexagon.target import hexagon_target, host_target

VERSIONS = [65, 66, 68, 69, 73, 75]
NEWER = [79, 81]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tag_has_the_attributes_tvm_gives_it(version: int) -> None:
    target = hexagon_target(f"qcom/hexagon-v{version}")
    of_tvm = tvm.target.Target(target.tag).attrs
    assert target.version == version
    assert target.mcpu == of_tvm["mcpu"]
    assert target.vtcm_bytes == of_tvm["vtcm-capacity"]
    assert target.contexts == of_tvm["num-cores"]
    assert target.hvx_float == ("+hvx-qfloat" in of_tvm["mattr"])


@pytest.mark.parametrize("version", NEWER)
def test_a_tag_tvm_lacks_has_the_features_of_the_last_one_it_has(version: int) -> None:
    target, last = hexagon_target(f"qcom/hexagon-v{version}"), hexagon_target("qcom/hexagon-v75")
    assert target == replace(last, tag=target.tag, version=version)
    with pytest.raises(ValueError, match=target.tag):
        tvm.target.Target(target.tag)


@pytest.mark.parametrize("version", VERSIONS + NEWER)
def test_the_llvm_target_has_128_byte_hvx(version: int) -> None:
    target = hexagon_target(f"qcom/hexagon-v{version}").llvm_target()
    assert target.kind.name == "llvm"
    assert "hexagon" in target.keys
    assert tvm.target.codegen.target_has_features(["hvx", "hvx-length128b"], target)


@pytest.mark.parametrize("tag", ["qcom/hexagon-v99", "", "hexagon", "qcom/hexagon-v68 "])
def test_an_unknown_tag_names_the_known_ones(tag: str) -> None:
    with pytest.raises(TargetError, match=r"qcom/hexagon-v65.*qcom/hexagon-v68.*qcom/hexagon-v75") as error:
        hexagon_target(tag)
    assert repr(tag) in str(error.value)


def test_the_host_target_is_this_cpu() -> None:
    target = host_target()
    assert target.kind.name == "llvm"
    assert target.attrs["mcpu"] == tvm.target.codegen.llvm_get_system_cpu()
