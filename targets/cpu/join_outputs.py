"""Lets FuseOps make one PrimFunc with several outputs of elementwise results of a function.

FuseOps fuses a producer only with a consumer that all its uses lead to, so ``rounded``, which both the int8
values and the residual need, would be a kernel of its own, and so would the residual stream, a result that a
norm reads. Joining the results in one identity of several outputs gives them such a consumer; scheduling
inlines the identity away, but for a copy of what a reduction needs too.

Runs after AnnotateTIROpPattern, which has to run again after it, and before FuseOps.
"""

from __future__ import annotations

from collections.abc import Iterable

import tvm
from tvm import relax, te, tirx, topi
from tvm_ffi import structural_equal

from targets.cpu.rewrite import rewrite_functions, users_of

_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
# FuseOps' numbers: elementwise, broadcast, injective.
_FUSIBLE_PATTERNS = (0, 1, 2)


@tvm.transform.module_pass(opt_level=0, name="JoinOutputs")
class JoinOutputs:
    """Joins fusible results of each shape that are used for nothing but results joined with them."""

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        joiner = _Joiner(mod)
        return rewrite_functions(mod, joiner.builder_, joiner.rewrite)


def _identities(*tensors: te.Tensor) -> list[te.Tensor]:
    return [topi.identity(tensor) for tensor in tensors]


class _Results:
    """What a function returns, and what is computed on the way there."""

    def __init__(self, mod: tvm.IRModule, function: relax.Function):
        self.mod = mod
        self.values: dict[relax.Var, relax.Expr] = dict(relax.analysis.get_var2val(function).items())
        self.tuple = self.values.get(function.body.body)
        self.fields = list(self.tuple.fields) if isinstance(self.tuple, relax.Tuple) else []
        self.users = users_of({v: value for v, value in self.values.items() if not value.same_as(self.tuple)})

    def joinable(self) -> list[list[relax.Var]]:
        """Results to join, by shape."""
        once = [field for field in self.fields if _count(field, self.fields) == 1]
        # A change of shape alone becomes a view, without a copy.
        elementwise = [field for field in once if self._is_fusible(field) and not self._is_view(field)]
        return [self._that_end_in_it(group) for group in _by_shape(elementwise)]

    def _kernel(self, var: relax.Expr) -> tirx.PrimFunc | None:
        value = self.values.get(var)
        return self.mod[value.args[0]] if isinstance(value, tvm.ir.Call) and value.op == _CALL_TIR else None

    def _is_view(self, var: relax.Expr) -> bool:
        kernel = self._kernel(var)
        return kernel is not None and relax.analysis.has_reshape_pattern(kernel)

    def _is_fusible(self, var: relax.Expr) -> bool:
        kernel = self._kernel(var)
        pattern = kernel.attrs.get("op_pattern") if kernel is not None else None
        return pattern is not None and int(pattern) in _FUSIBLE_PATTERNS

    def _that_end_in_it(self, group: list[relax.Var]) -> list[relax.Var]:
        """Those whose every use leads to the group: others are kernels of their own, and would be copied."""
        kept = [field for field in group if self._ends_in(group, field)]
        return kept if len(kept) == len(group) else self._that_end_in_it(kept)

    def _ends_in(self, group: list[relax.Var], field: relax.Var) -> bool:
        found, pending = {field}, [field]
        while pending:
            var = pending.pop()
            is_other_result = _count(var, self.fields) and not _count(var, group)
            if is_other_result or not self._is_fusible(var):
                return False
            pending += self.users.get(var, set()) - found
            found.update(pending)
        return True


@relax.expr_functor.mutator
class _Joiner(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.mod = mod
        self.results: relax.Expr | None = None
        self.joinable: list[list[relax.Var]] = []

    def rewrite(self, function: relax.Function) -> relax.Function:
        results = _Results(self.mod, function)
        self.results, self.joinable = results.tuple, results.joinable()
        return self.visit_expr(function)

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


def _count(var: relax.Expr, variables: Iterable[relax.Expr]) -> int:
    return sum(other.same_as(var) for other in variables)


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
