"""Attention and the static quantization of its result (``relax_passes.quantize_w8a8``) as one kernel.

Runs before LegalizeOps, which takes the attention that is left. DeadCodeElimination has to follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.relax.dpl import DFPattern, is_const, is_op, wildcard

from targets.cpu.attention_output import LIMIT, Quantization
from targets.cpu.legalize_attention import attention_kernel
from targets.cpu.rewrite import rewrite_functions, users_of


@tvm.transform.module_pass(opt_level=0, name="FuseAttentionQuantize")
class FuseAttentionQuantize:
    """One kernel for attention, a reshape to rows and their integers, with a residual or without.

    They stay apart where anything else reads a value on the way.
    """

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        fuser = _Fuser(mod)
        return rewrite_functions(mod, fuser.builder_, fuser.rewrite)


@dataclass(frozen=True)
class _Match:
    """Attention, what its result is divided by, and the calls that make integers and residual of it."""

    attention: tvm.ir.Call
    step: relax.Expr
    clipped: tvm.ir.Call
    integers: tvm.ir.Call
    residual: tvm.ir.Call | None

    @property
    def results(self) -> list[tvm.ir.Call]:
        return [self.integers] if self.residual is None else [self.integers, self.residual]

    def is_supported(self) -> bool:
        """Whether a kernel does this: rows of all heads to -127 .. 127, one step or one for each column."""
        columns = int(self.attention.ty.shape[2]) * int(self.attention.ty.shape[3])
        limits = [float(limit.value) for limit in self.clipped.args[1:]]
        rows, step = self.integers.ty, [int(extent) for extent in self.step.ty.shape]
        is_row = rows.ndim == 2 and int(rows.shape[1]) == columns and str(rows.dtype) == "int8"
        is_exact = self.residual is None or not self.residual.args[1].value.numpy().any()
        return is_row and is_exact and limits == [-LIMIT, LIMIT] and step in ([], [columns])


@relax.expr_functor.mutator
class _Fuser(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.matches: dict[relax.Expr, _Match] = {}
        # What replaces the calls of a match.
        self.results: dict[relax.Expr, relax.Expr] = {}

    def rewrite(self, function: relax.Function) -> relax.Function:
        self.matches = {call: match for match in _Finder(function).find() for call in match.results}
        self.results = {}
        return self.visit_expr(function)

    def visit_call_(self, call: tvm.ir.Call) -> relax.Expr:
        if call not in self.matches:
            return super().visit_call_(call)
        if call not in self.results:
            self.results |= self._fuse(self.matches[call])
        return self.results[call]

    def _fuse(self, match: _Match) -> dict[relax.Expr, relax.Expr]:
        quantization = Quantization(match.step.ty.ndim > 0, match.residual is not None)
        kernel = self.builder_.add_func(attention_kernel(match.attention, quantization), "attention_w8a8")
        arguments = [self.visit_expr(argument) for argument in (*match.attention.args[:3], match.step)]
        if match.residual is None:
            return {match.integers: relax.call_tir(kernel, arguments, out_ty=match.integers.ty)}
        types = [match.integers.ty, match.residual.ty]
        both = self.builder_.emit(relax.call_tir(kernel, arguments, out_ty=types))
        return {call: relax.TupleGetItem(both, i) for i, call in enumerate(match.results)}


class _Finder:
    """Finds what can be fused in a function."""

    def __init__(self, function: relax.Function) -> None:
        self.values = dict(relax.analysis.get_var2val(function).items())
        self.variables = {value: var for var, value in self.values.items()}
        self.users = users_of(self.values)

    def find(self) -> Iterator[_Match]:
        """The quantized attentions whose values on the way nothing else reads."""
        attention, step = is_op("relax.nn.attention")(wildcard(), wildcard(), wildcard()), wildcard()
        scaled = is_op("relax.divide")(is_op("relax.reshape")(attention, wildcard()), step)
        rounded = is_op("relax.round")(scaled)
        clipped = is_op("relax.clip")(rounded, wildcard(), wildcard())
        excess = is_op("relax.subtract")(scaled, clipped)
        residual = is_op("relax.where")(is_op("relax.equal")(rounded, clipped), is_const(), excess)
        residuals = {parts[clipped]: parts[residual] for parts in self._matches(residual)}
        integers = is_op("relax.astype")(clipped)
        for parts in self._matches(integers):
            call = parts[clipped]
            match = _Match(parts[attention], parts[step], call, parts[integers], residuals.get(call))
            if match.is_supported() and self._leads_only_to_results(match):
                yield match

    def _matches(self, pattern: DFPattern) -> Iterator[dict[DFPattern, relax.Expr]]:
        for value in self.values.values():
            parts = pattern.extract_matched_expr(value, self.values)
            if parts is not None:
                yield parts

    def _leads_only_to_results(self, match: _Match) -> bool:
        results = {self.variables[call] for call in match.results}
        pending = [self.variables[match.attention]]
        while pending:
            users = self.users.get(pending.pop(), set())
            if not users:  # returned
                return False
            pending += users - results
        return True
