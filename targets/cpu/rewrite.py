"""What the passes that rewrite Relax functions have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tvm
from tvm import relax


def rewrite_functions(
    mod: tvm.IRModule, builder: relax.BlockBuilder, rewrite: Callable[[relax.Function], relax.Function]
) -> tvm.IRModule:
    """The module of a mutator's ``builder`` with every Relax function of ``mod`` rewritten."""
    for gvar, function in mod.functions_items():
        if isinstance(function, relax.Function):
            builder.update_func(gvar, rewrite(function))
    return builder.get()


def users_of(values: Mapping[relax.Var, relax.Expr]) -> dict[relax.Var, set[relax.Var]]:
    """The variables whose values read each variable."""
    users: dict[relax.Var, set[relax.Var]] = {}
    for user, value in values.items():
        for var in relax.analysis.all_vars(value):
            users.setdefault(var, set()).add(user)
    return users
