"""Cuts ``main`` into functions that all prompt chunks, and all layers of equal shape, share.

Runs after ``lower_linear``. What becomes one function is decided in ``stages``; structurally equal functions
(weights are parameters) are merged.

A cache append, ``concat([cache, rows])`` on the token axis, is no function: it stays in ``main``, and
consumers get the whole cache as an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tvm
from tvm import ir, relax, tirx
from tvm_ffi import structural_equal, structural_hash

from .analyze_token_axis import TokenAxisTable, analyze_token_axis
from .errors import PassError
from .graph import op_name, operands, results, split_params, static_shape
from .stages import APPEND, DYNAMIC, LINEAR, MLP, Stage, find_stages


@tvm.transform.module_pass(opt_level=0, name="Partition")
class Partition:
    """Outlines ``main`` into private functions with the attribute ``kind``; ``main`` becomes their calls."""

    def transform_module(self, mod: ir.IRModule, _context: tvm.transform.PassContext) -> ir.IRModule:
        return _Partitioner(mod["main"]).run()


class _Partitioner:
    def __init__(self, function: relax.Function):
        self.function = function
        self.inputs, self.parameters = split_params(function)
        self.table = analyze_token_axis(function)
        self.returned = results(function)
        self.stages = find_stages(function, self.table, set(self.inputs), set(self.returned))
        self.outputs = {value for stage in self.stages for value in stage.reads} | set(self.returned)
        self.builder = relax.BlockBuilder()
        self.shared: dict[int, list[tuple[relax.Function, ir.GlobalVar]]] = {}
        self.counts: dict[str, int] = {}

    def run(self) -> ir.IRModule:
        values: dict[relax.Var, relax.Expr] = {p: p for p in self.function.params}
        with self.builder.function("main", list(self.function.params), dict(self.function.attrs)):
            with self.builder.dataflow():
                for stage in self.stages:
                    self._emit_stage(stage, values)
                outputs = relax.Tuple([values[value] for value in self.returned])
                result = self.builder.emit_output(outputs)
            self.builder.emit_func_output(result)
        return self.builder.get()

    def _emit_stage(self, stage: Stage, values: dict[relax.Var, relax.Expr]) -> None:
        if stage.kind == APPEND:
            for binding in stage.bindings:
                cache, rows = operands(binding.value)
                appended = relax.op.concat([values[cache], values[rows]], axis=0)
                values[binding.var] = self.builder.emit(appended, binding.var.name)
            return
        outputs = self._outputs(stage)
        if not outputs:  # only names for values that are returned
            return
        inputs = stage.reads
        function = _outline(stage, inputs, outputs, self.table)
        call = relax.Call(self._share(function, stage), [values[value] for value in inputs])
        result = self.builder.emit(call)
        if len(outputs) == 1:
            values[outputs[0]] = result
            return
        for i, output in enumerate(outputs):
            values[output] = self.builder.emit(relax.TupleGetItem(result, i))

    def _outputs(self, stage: Stage) -> list[relax.Var]:
        """The values of a stage that other stages or the caller read, in order of definition."""
        return [b.var for b in stage.bindings if b.var in self.outputs]

    def _share(self, function: relax.Function, stage: Stage) -> ir.GlobalVar:
        candidates = self.shared.setdefault(structural_hash(function), [])
        for candidate, name in candidates:
            if structural_equal(candidate, function):
                return name
        name = self.builder.add_func(function, self._name(stage))
        candidates.append((function, name))
        return name

    def _name(self, stage: Stage) -> str:
        base = _function_name(stage)
        count = self.counts.get(base, 0)
        self.counts[base] = count + 1
        return base if count == 0 and stage.kind in (LINEAR, MLP, DYNAMIC) else f"{base}_{count}"


def _function_name(stage: Stage) -> str:
    if stage.kind == LINEAR:
        x, _ = operands(stage.bindings[0].value)
        k, n = x.ty.shape.values[1], stage.bindings[0].var.ty.shape.values[1]
        return f"linear_{int(k)}x{int(n)}"
    if stage.kind == MLP:
        _, _, gate_up, *_, down = operands(stage.bindings[0].value)
        sizes = (static_shape(gate_up), static_shape(down))
        (_, k_blocks, _, k_lanes), (n_blocks, channel_blocks, n_lanes, _) = sizes
        return f"mlp_{k_blocks * k_lanes}x{channel_blocks * k_lanes}x{n_blocks * n_lanes}"
    if stage.kind == DYNAMIC and any(op_name(b.value) == "relax.nn.attention" for b in stage.bindings):
        return "attention"
    return stage.kind


def _outline(
    stage: Stage, inputs: Sequence[relax.Var], outputs: Sequence[relax.Var], table: TokenAxisTable
) -> relax.Function:
    """A private function of the stage's bindings, with symbolic variables of its own."""
    total = tirx.Var("total", "int64")
    arguments = {value: relax.Var(value.name, _argument_type(value, table, total)) for value in inputs}
    builder = relax.BlockBuilder()
    with builder.function("outlined", list(arguments.values()), private=True):
        with builder.dataflow():
            values = _emit_copies(builder, stage.bindings, arguments)
            found = [values[value] for value in outputs]
            result = builder.emit_output(found[0] if len(found) == 1 else relax.Tuple(found))
        builder.emit_func_output(result)
    function = relax.utils.copy_with_new_vars(builder.get()["outlined"])
    return function.with_attr("kind", stage.kind)


def _argument_type(value: relax.Var, table: TokenAxisTable, total: tirx.Var) -> relax.TensorType:
    """The type of a value as an argument: a whole cache has a length of its own, ``total``."""
    axis = table.axis(value)
    if axis is None or isinstance(axis.tokens, relax.Var):
        return value.ty
    shape = list(value.ty.shape.values)
    shape[axis.axis] = total
    return relax.TensorType(shape, value.ty.dtype)


def _emit_copies(
    builder: relax.BlockBuilder,
    found: Sequence[relax.VarBinding],
    arguments: Mapping[relax.Var, relax.Var],
) -> dict[relax.Var, relax.Expr]:
    """Emits copies of the bindings with ``arguments`` in place of what they read from outside."""
    values: dict[relax.Var, relax.Expr] = dict(arguments)
    for binding in found:
        copy = _substitute(binding.value, values)
        values[binding.var] = builder.emit(copy, binding.var.name)
    return values


def _substitute(expr: relax.Expr, values: Mapping[relax.Var, relax.Expr]) -> relax.Expr:
    if isinstance(expr, relax.Var):
        return values.get(expr, expr)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([_substitute(field, values) for field in expr.fields])
    if isinstance(expr, relax.TupleGetItem):
        return relax.TupleGetItem(_substitute(expr.tuple_value, values), expr.index)
    if isinstance(expr, relax.Call):
        return relax.Call(expr.op, [_substitute(arg, values) for arg in expr.args], expr.attrs, expr.ty_args)
    if isinstance(expr, (relax.ShapeExpr, relax.ExternFunc, ir.GenericConst, tirx.IntImm, tirx.FloatImm)):
        return expr
    raise PassError(f"cannot outline an expression of kind {type(expr).__name__}")
