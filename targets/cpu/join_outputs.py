"""Lets FuseOps make one PrimFunc with several outputs of elementwise results of a function.

FuseOps fuses a producer only with a consumer that all its uses lead to, so ``rounded``, which both the int8
values and the residual need, would be a kernel of its own. Joining the results in one identity of several
outputs gives it such a consumer; scheduling inlines the identity away.

Runs after AnnotateTIROpPattern, which has to run again after it, and before FuseOps.
"""

from __future__ import annotations

import tvm
from tvm import relax, te, topi
from tvm_ffi import structural_equal

_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
# FuseOps' numbers: elementwise, broadcast, injective.
_FUSIBLE_PATTERNS = (0, 1, 2)


@tvm.transform.module_pass(opt_level=0, name="JoinOutputs")
class JoinOutputs:
    """Joins results that are elementwise and used for nothing else, those of each shape."""

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        joiner = _Joiner(mod)
        for gvar, function in mod.functions_items():
            if isinstance(function, relax.Function):
                joiner.builder_.update_func(gvar, joiner.rewrite(function))
        return joiner.builder_.get()


def _identities(*tensors: te.Tensor) -> list[te.Tensor]:
    return [topi.identity(tensor) for tensor in tensors]


@relax.expr_functor.mutator
class _Joiner(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.mod = mod
        self.results: relax.Expr | None = None
        self.joinable: list[list[relax.Var]] = []
        """Results to join, by shape."""

    def rewrite(self, function: relax.Function) -> relax.Function:
        values = relax.analysis.get_var2val(function)
        self.results = values.get(function.body.body)
        self.joinable = []
        if isinstance(self.results, relax.Tuple):
            uses = [var for value in values.values() for var in relax.analysis.all_vars(value)]
            fields = [field for field in self.results.fields if self._is_elementwise(values.get(field))]
            self.joinable = _by_shape([field for field in fields if _count(field, uses) == 1])
        return self.visit_expr(function)

    def _is_elementwise(self, value: relax.Expr | None) -> bool:
        if not isinstance(value, tvm.ir.Call) or value.op != _CALL_TIR:
            return False
        func = self.mod[value.args[0]]
        pattern = func.attrs.get("op_pattern")
        # A change of shape alone becomes a view, without a copy.
        is_view = relax.analysis.has_reshape_pattern(func)
        return pattern is not None and int(pattern) in _FUSIBLE_PATTERNS and not is_view

    def visit_tuple_(self, op: relax.Tuple) -> relax.Expr:
        if not op.same_as(self.results):
            return super().visit_tuple_(op)
        joined: dict[relax.Var, relax.Expr] = {}
        for fields in self.joinable:
            if len(fields) > 1:
                joined |= self._join(fields)
        return relax.Tuple([self.builder_.emit(joined.get(f, self.visit_expr(f))) for f in op.fields])

    def _join(self, fields: list[relax.Var]) -> dict[relax.Var, relax.Expr]:
        """What each of ``fields`` is after one identity of all of them."""
        inputs = [self.visit_expr(field) for field in fields]
        join = self.builder_.emit(self.builder_.call_te(_identities, *inputs, primfunc_name_hint="join"))
        return {field: relax.TupleGetItem(join, i) for i, field in enumerate(fields)}


def _count(var: relax.Var, uses: list[relax.Var]) -> int:
    return sum(use.same_as(var) for use in uses)


def _by_shape(variables: list[relax.Var]) -> list[list[relax.Var]]:
    groups: list[list[relax.Var]] = []
    for var in variables:
        for group in groups:
            if structural_equal(var.ty.shape, group[0].ty.shape):
                group.append(var)
                break
        else:
            groups.append([var])
    return groups
