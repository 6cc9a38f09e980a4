"""From Relax functions to a CPU library: the one list of passes, the build, and the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tvm
from tvm import relax, tirx

from targets.cpu.fuse_attention_quantize import FuseAttentionQuantize
from targets.cpu.join_outputs import JoinOutputs
from targets.cpu.legalize import legalize_map
from targets.cpu.named_kernels import BindNamedKernels
from targets.cpu.schedule import schedule_for_cpu
from targets.errors import TargetError, ToolchainError


def lowering_passes(target: tvm.target.Target) -> list[tvm.ir.transform.Pass]:
    """Relax ops to scheduled PrimFuncs."""
    return [
        BindNamedKernels(target),
        FuseAttentionQuantize(),
        relax.transform.DeadCodeElimination(),
        relax.transform.LegalizeOps(legalize_map()),
        relax.transform.FoldConstant(),
        relax.transform.AnnotateTIROpPattern(),
        JoinOutputs(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
        schedule_for_cpu,
        # Inlining duplicates the Let expressions of vector_math.
        tirx.transform.ConvertSSA(),
    ]


def vm_passes() -> list[tvm.ir.transform.Pass]:
    """Calls of scheduled PrimFuncs to virtual machine instructions."""
    return [
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]


def lower(mod: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """Each Relax function as calls of scheduled PrimFuncs; ``mod`` is left as it is."""
    with target:
        return tvm.transform.Sequential(lowering_passes(target))(mod)


def compile_options() -> tvm.transform.PassContext:
    """How PrimFuncs are compiled to machine code, as a context manager.

    Without the pass that shrinks buffers to what is accessed: the kernels' are that size already, and it
    takes half of an attention kernel's compile time.
    """
    return tvm.transform.PassContext(disabled_pass=["s_tir.CompactBufferAllocation"])


def build(mod: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Lower and compile all functions of ``mod`` into one executable."""
    lowered = lower(mod, target)
    with compile_options():
        return relax.build(lowered, target, relax_pipeline=tvm.transform.Sequential(vm_passes()))


def _link(output: str, objects: list[str], **_options: object) -> None:
    # Without a C library of its own: zig would build one first, half a minute on a fresh machine, and the few
    # functions the kernels need (memset, powf) are in the process already.
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-nostdlib", "-o", output, *objects]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ToolchainError(
            f"linking {output} failed with code {result.returncode}: {result.stderr.strip()[-2000:]}\n"
            f"expected the ziglang package to work: try '{sys.executable} -m ziglang version'"
        )


def export_library(executable: relax.VMExecutable, path: str | os.PathLike[str]) -> None:
    """Write the executable as a shared library to ``path``; the file appears complete or not at all.

    Raises ToolchainError when the linker fails.
    """
    final = Path(path)
    temporary = final.with_name(f"{final.name}.{os.getpid()}.tmp.so")
    try:
        executable.export_library(str(temporary), fcompile=_link)
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def load_vm(path: str | os.PathLike[str]) -> relax.VirtualMachine:
    """A virtual machine over an exported library; it may be used by one thread only.

    The data of arguments has to be aligned to 64 bytes, as TVM's own tensors are: kernels load whole vectors.
    Raises TargetError when ``path`` is not a file.
    """
    if not Path(path).is_file():
        raise TargetError(f"no CPU library at {path}: expected a file written by export_library")
    # The pool keeps a buffer of every size it has seen, and dynamic functions see a new size at each token.
    return relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu(), memory_cfg="naive")
