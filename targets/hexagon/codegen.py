"""TIR kernels -> one object file that registers its kernels with the device server it is linked into."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import tvm
from tvm import tirx

from targets.errors import ToolchainError

_SYSTEM_LIB_PREFIX = "mllm_"
_KERNEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def build_object(kernels: Mapping[str, tirx.PrimFunc], target: tvm.target.Target, path: Path) -> None:
    """Compile ``kernels`` (name -> PrimFunc) for ``target`` into the relocatable object file ``path``.

    A kernel takes its buffers in parameter order and is called on the device by its name. Raises
    ToolchainError when there are no kernels, a name is not a C identifier, or TVM cannot generate the code.
    """
    module = _system_library(kernels)
    try:
        library = tvm.tirx.build(module, target=target)
    except Exception as error:
        # Passes and the LLVM code generator raise many types, none of them a user's.
        raise ToolchainError(
            f"cannot generate code for {sorted(kernels)}, target {target}: {error}"
        ) from error
    _write_object(library, path)


def _system_library(kernels: Mapping[str, tirx.PrimFunc]) -> tvm.IRModule:
    if not kernels:
        raise ToolchainError("no kernels to build: expected at least one PrimFunc")
    for name in kernels:
        if not _KERNEL_NAME.fullmatch(name):
            raise ToolchainError(
                f"bad kernel name {name!r}: expected a C identifier of at most 128 characters"
            )
    functions = {name: kernel.with_attr("global_symbol", name) for name, kernel in kernels.items()}
    # Without a prefix, runtime functions are called through pointers that only a dynamic loader fills in.
    # It does not become a part of names that are given as global symbols.
    return tvm.IRModule(functions).with_attr("system_lib_prefix", _SYSTEM_LIB_PREFIX)


def _write_object(library: tvm.runtime.Module, path: Path) -> None:
    # TVM picks the file format from the suffix.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".codegen-") as folder:
        unfinished = Path(folder) / "kernels.o"
        library.write_to_file(str(unfinished))
        os.replace(unfinished, path)
