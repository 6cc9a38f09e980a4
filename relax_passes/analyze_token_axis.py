"""Which axis of each value counts tokens, and which ops mix tokens.

An op is *token-wise* when each output token depends on the same input token only (linear, norm, elementwise,
RoPE rows); it is *token-mixing* when it reduces, concatenates or contracts along the token axis (attention,
cache append). Token-wise regions can be cut into chunks of any length; token-mixing ones need all earlier
tokens.

Every op has an exact rule. One without a rule is an error that names it: a silent guess would cut a graph
wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm import relax, tirx

from .errors import PassError
from .graph import bindings, op_name, operands, split_params
from .token_axis_rules import RULES, Result, TokenAxis


@dataclass(frozen=True)
class OpTokens:
    """What the analysis found for one binding."""

    value: str
    op: str
    axis: TokenAxis | None
    mixes: bool


class TokenAxisTable:
    """The analysis of a whole function; printable."""

    def __init__(self, axes: Mapping[relax.Var, TokenAxis | None], rows: Mapping[relax.Var, OpTokens]):
        self._axes = dict(axes)
        self._rows = dict(rows)

    def axis(self, value: relax.Var) -> TokenAxis | None:
        """The token axis of a value of the function, None when it has none (weights)."""
        return self._axes[value]

    def mixes(self, value: relax.Var) -> bool:
        """Whether the op that computes ``value`` mixes tokens."""
        return self._rows[value].mixes

    @property
    def rows(self) -> tuple[OpTokens, ...]:
        """One row a binding, in program order."""
        return tuple(self._rows.values())

    def __str__(self) -> str:
        header = f"{'value':24} {'op':28} {'axis':>4} {'tokens':16} kind"
        return "\n".join([header, *map(_row_text, self.rows)])


def _row_text(row: OpTokens) -> str:
    if row.axis is None:
        return f"{row.value:24} {row.op:28} {'-':>4} {'-':16} constant"
    kind = "token-mixing" if row.mixes else "token-wise"
    return f"{row.value:24} {row.op:28} {row.axis.axis:>4} {row.axis.tokens!s:16} {kind}"


def analyze_token_axis(function: relax.Function) -> TokenAxisTable:
    """Finds the token axis of every value of ``function`` (inputs: its first ``num_input`` arguments).

    Raises:
        PassError: an op has no rule, or its operands' token axes cannot be aligned.
    """
    inputs, parameters = split_params(function)
    axes: dict[relax.Var, TokenAxis | None] = dict.fromkeys(parameters)
    axes.update({value: _input_axis(value) for value in inputs})
    rows: dict[relax.Var, OpTokens] = {}
    for binding in bindings(function):
        axis, mixes = _infer(binding, axes)
        axes[binding.var] = axis
        rows[binding.var] = OpTokens(binding.var.name, op_name(binding.value), axis, mixes)
    return TokenAxisTable(axes, rows)


def _input_axis(value: relax.Var) -> TokenAxis:
    symbolic = [i for i, extent in enumerate(value.ty.shape.values) if not isinstance(extent, tirx.IntImm)]
    if len(symbolic) != 1:
        raise PassError(f"input {value.name}: expected one symbolic axis (its tokens), found {len(symbolic)}")
    return TokenAxis(symbolic[0], value.ty.shape.values[symbolic[0]])


def _infer(binding: relax.VarBinding, axes: Mapping[relax.Var, TokenAxis | None]) -> Result:
    expr = binding.value
    found = [axes[leaf] if isinstance(leaf, relax.Var) else None for leaf in operands(expr)]
    if all(axis is None for axis in found):
        return None, False
    if not isinstance(expr, relax.Call):
        return found[0], False
    rule = RULES.get(op_name(expr))
    if rule is None:
        raise PassError(
            f"op {op_name(expr)} (value {binding.var.name}) has no token-axis rule; "
            "add one to relax_passes/token_axis_rules.py"
        )
    return rule(expr, found)
