"""Reads the call graph of a partitioned module, for the manifest."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import cast

from tvm import ir, relax

from mllm_tvm.manifest import CacheSpec, Call, FunctionKind, FunctionSpec, Graph, Processor
from mllm_tvm.runtime.task_graph import PARAMETER_PREFIX
from relax_passes.graph import bindings, op_name, operands, results, split_params

_LAYER = re.compile(r"\.(\d+)\.")


def extract_graph(mod: ir.IRModule) -> Graph:
    """The call graph of a module that the pass pipeline made.

    ``main`` returns the logits first and the appended caches after it; its caches are the inputs that a
    ``concat`` extends.
    """
    return _GraphReader(mod).read()


class _GraphReader:
    def __init__(self, mod: ir.IRModule):
        self.mod = mod
        self.main = mod["main"]
        inputs, parameters = split_params(self.main)
        self.values: dict[relax.Var, str] = {value: value.name for value in inputs}
        self.values.update({p: PARAMETER_PREFIX + p.name for p in parameters})
        self.calls: list[Call] = []
        self.caches: list[CacheSpec] = []
        self.layer = 0
        self.made = 0

    def read(self) -> Graph:
        tuples: dict[relax.Var, tuple[str, ...]] = {}
        for binding in bindings(self.main):
            self._read_binding(binding, tuples)
        names = dict.fromkeys(call.function for call in self.calls)
        functions = tuple(self._function(name) for name in names)
        logits = self.values[results(self.main)[0]]
        return Graph(functions, tuple(self.calls), tuple(self.caches), logits)

    def _read_binding(self, binding: relax.VarBinding, tuples: dict[relax.Var, tuple[str, ...]]) -> None:
        expr = binding.value
        if isinstance(expr, relax.TupleGetItem):
            self.values[binding.var] = tuples[expr.tuple_value][int(expr.index)]
        elif op_name(expr) == "relax.concat":
            cache, rows = operands(expr)
            self.values[binding.var] = cache.name
            shape = tuple(int(extent) for extent in rows.ty.shape.values[1:])
            self.caches.append(CacheSpec(cache.name, self.values[rows], shape))
        elif isinstance(expr, relax.Call):
            tuples[binding.var] = self._read_call(expr)
            self.values[binding.var] = tuples[binding.var][0]

    def _read_call(self, call: relax.Call) -> tuple[str, ...]:
        args = tuple(self.values[arg] for arg in call.args)
        count = len(call.ty.fields) if isinstance(call.ty, relax.TupleType) else 1
        outputs = tuple(f"%{self.made + i}" for i in range(count))
        self.made += count
        # A function between two layers counts for the one it finishes.
        layers = [int(m[1]) for arg in args if (m := _LAYER.search(arg))]
        self.layer = min(layers, default=self.layer)
        self.calls.append(Call(call.op.name_hint, self.layer, args, outputs))
        return outputs

    def _function(self, name: str) -> FunctionSpec:
        function = self.mod[name]
        kind, processor = str(function.attrs["kind"]), str(function.attrs["processor"])
        spec = FunctionSpec(name, cast(Processor, processor), cast(FunctionKind, kind))
        if processor != "npu":
            return spec
        weights = [_matrix(p) for p in function.params if len(p.ty.shape.values) == 4]
        channels = weights[1][0] if kind == "mlp" else 0
        return replace(spec, k=weights[0][0], n=weights[-1][1], channels=channels)


def _matrix(packed: relax.Var) -> tuple[int, int]:
    """(K, N) of a packed weight [N / 32, K / 4, 32, 4]."""
    blocks_n, blocks_k, lanes, bytes_ = (int(extent) for extent in packed.ty.shape.values)
    return blocks_k * bytes_, blocks_n * lanes
