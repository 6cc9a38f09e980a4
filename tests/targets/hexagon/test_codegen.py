"""Objects for the device server: symbols, machine, errors."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tvm import te, tirx

from targets.errors import ToolchainError
from targets.hexagon.codegen import build_object
from targets.hexagon.target import host_target
from tests.targets.hexagon.kernels import add_kernel, hexagon_target

ELF_RELOCATABLE = 1
ELF_HEXAGON = 164


def test_hexagon_object_registers_its_kernels(tmp_path: Path) -> None:
    path = tmp_path / "kernels.o"
    build_object({"add_8": add_kernel(8), "add_16": add_kernel(16)}, hexagon_target(), path)
    content = path.read_bytes()
    assert struct.unpack_from("<HH", content, 16) == (ELF_RELOCATABLE, ELF_HEXAGON)
    for symbol in (b"__tvm_ffi_add_8", b"__tvm_ffi_add_16", b"TVMFFIEnvModRegisterSystemLibSymbol"):
        assert symbol in content


def test_host_object_is_for_this_cpu(tmp_path: Path) -> None:
    path = tmp_path / "kernels.o"
    build_object({"add": add_kernel(8)}, host_target(), path)
    assert struct.unpack_from("<H", path.read_bytes(), 16) == (ELF_RELOCATABLE,)
    assert str(host_target().attrs["mcpu"]) != "generic"


@pytest.mark.parametrize("name", ["", "1st", "a-b", "a b", "é", "x" * 129])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ToolchainError, match="bad kernel name"):
        build_object({name: add_kernel(8)}, host_target(), tmp_path / "kernels.o")


def test_no_kernels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no kernels"):
        build_object({}, host_target(), tmp_path / "kernels.o")


def test_code_generation_failure_names_the_kernel_and_leaves_nothing(tmp_path: Path) -> None:
    a = te.placeholder((8,), "int32", name="a")
    call = te.compute((8,), lambda i: tirx.call_intrin("int32", "tirx.tvm_warp_activemask", a[i]), name="c")
    with pytest.raises(ToolchainError, match=r"cannot generate code for \['broken'\]"):
        build_object({"broken": te.create_prim_func([a, call])}, hexagon_target(), tmp_path / "kernels.o")
    assert list(tmp_path.iterdir()) == []
