"""The bytes that the simulator charges float functions with are those of the kernels the compiler makes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
from tvm import ir, relax, tirx

from mllm_tvm.call_graph import extract_graph
from mllm_tvm.runtime.task_graph import CallGraph
from mllm_tvm.simulate.configuration import OURS
from mllm_tvm.simulate.models import find_model
from mllm_tvm.simulate.program import chunk_program
from targets.cpu.build import lower
from targets.cpu.target import cpu_target
from tests.mllm_tvm.simulate.compiled_models import LAYERS, MODELS, placed_module


def row(value: relax.Expr) -> tuple[int, int]:
    """A row of what is computed for tokens: its elements and bytes; none of a parameter.

    Parts of one dtype (queries, keys) are different elements, those of two (integers, residual) the same.
    """
    fields = value.ty.fields if isinstance(value.ty, ir.TupleType) else [value.ty]
    counts: Counter[np.dtype] = Counter()
    for field in fields:
        if field.shape.values and not isinstance(field.shape.values[0], tirx.IntImm):
            counts[np.dtype(str(field.dtype))] += prod(int(extent) for extent in field.shape.values[1:])
    return max(counts.values(), default=0), sum(n * dtype.itemsize for dtype, n in counts.items())


def kernel_bytes(call: relax.Call, output: relax.Var) -> float:
    """Of a row; of a slice only what is copied is read."""
    elements, written = row(output)
    read = (row(argument) for argument in call.args[1])
    return written + sum(size * min(count, elements) / count for count, size in read if count)


def kernels(function: relax.Function) -> list[relax.VarBinding]:
    """Reshapes only rename."""
    bindings = [binding for block in function.body.blocks for binding in block.bindings]
    calls = [b for b in bindings if isinstance(b.value, relax.Call)]
    named = [b for b in calls if isinstance(b.value.args[0], ir.GlobalVar)]
    return [b for b in named if not b.value.args[0].name_hint.startswith(("reshape", "expand_dims"))]


def function_bytes(function: relax.Function) -> float:
    """A row of all its kernels."""
    return sum(kernel_bytes(b.value, b.var) for b in kernels(function))


def written_bytes(function: relax.Function) -> int:
    """A row of the result of its only kernel: what attention reads is counted by tokens it attends to."""
    (kernel,) = kernels(function)
    outputs = kernel.var.ty.fields if isinstance(kernel.var.ty, ir.TupleType) else [kernel.var.ty]
    sizes = ((output.shape.values[1:], np.dtype(str(output.dtype)).itemsize) for output in outputs)
    return sum(size * prod(int(extent) for extent in shape) for shape, size in sizes)


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_float_functions_move_the_compilers_bytes(name: str, shadow: bool, tmp_path: Path) -> None:
    module = placed_module(name, shadow, tmp_path)
    graph = CallGraph(extract_graph(module))
    calls = [graph.graph.calls[index] for index in graph.live if not graph.is_head(index)]
    names = [call.function for call in calls]
    used = {str(g.name_hint): f for g, f in module.functions_items() if g.name_hint in names}
    charged = {n: f for n, f in used.items() if graph.functions[n].kind in ("float", "dynamic")}
    public = {ir.GlobalVar(n): f.with_attr("global_symbol", n) for n, f in charged.items()}
    lowered = lower(ir.IRModule(public), cpu_target())
    program = chunk_program(
        replace(find_model(name), layers=LAYERS), replace(OURS, pruned_share=0.0 if shadow else 1.0)
    )
    ops = {op.name: op for op in program if not op.head}
    for op, function in list(zip(ops.values(), names, strict=True))[1:]:  # the first embeds tokens too
        if graph.functions[function].kind == "dynamic":
            assert op.work.float_bytes == written_bytes(lowered[function])
        elif function in charged:
            # The simulator has what a shadow's result takes to be added among the shadow's own bytes.
            shadows = [dep.removesuffix(".shadow") for dep in op.deps if dep.endswith(".shadow")]
            simulated = op.work.float_bytes + sum(ops[linear].out_bytes for linear in shadows)
            assert simulated == pytest.approx(function_bytes(lowered[function]), rel=0.1), op.name
