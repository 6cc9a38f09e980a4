"""Gives every function the processor it runs on: integer functions the NPU, float functions the CPU.

Runs after ``partition`` (it reads the attribute ``kind``).
"""

from __future__ import annotations

import tvm
from tvm import ir, relax

from .errors import PassError
from .stages import DYNAMIC, FLOAT, LINEAR, MLP, SHADOW

PROCESSORS = {LINEAR: "npu", MLP: "npu", SHADOW: "cpu", DYNAMIC: "cpu", FLOAT: "cpu"}


@tvm.transform.module_pass(opt_level=0, name="Place")
class Place:
    """Sets the attribute ``processor`` of each outlined function; raises PassError for an unknown kind."""

    def transform_module(self, mod: ir.IRModule, _context: tvm.transform.PassContext) -> ir.IRModule:
        placed = mod.clone()
        for name, function in mod.functions.items():
            if isinstance(function, relax.Function) and name.name_hint != "main":
                placed[name] = function.with_attr("processor", _processor(name, function))
        return placed


def _processor(name: ir.GlobalVar, function: relax.Function) -> str:
    kind = str(function.attrs["kind"]) if function.attrs and "kind" in function.attrs else None
    if kind not in PROCESSORS:
        raise PassError(f"function {name.name_hint}: expected a kind of {sorted(PROCESSORS)}, found {kind}")
    return PROCESSORS[kind]
