"""Which ops of ``main`` become one function, and in which order the functions run.

Every op belongs to one kind:

* ``linear``: the packed integer kernel;
* ``mlp``: the integer kernel of a whole gated MLP;
* ``shadow``: a float linear on the outlier residual;
* ``dynamic``: token-mixing ops, and ops on the whole cache or on values whose tokens are not rows (symbolic
  cache length, one copy); also what is made of their results alone, up to the next product: attention's
  result leaves as the integers that its output projection reads;
* ``float``: the other token-wise ops. So every value between functions has its tokens as rows.

An op's level is the largest level of what it reads, plus one where the kind changes; ops of equal level and
kind form one function. Data flows to higher levels only, so the cut has no cycle, and a quantized input's
integer and shadow linears land side by side, free to run at the same time. A float function whose results
one other float function reads, and nothing else, is a part of that: they stay in registers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tvm import relax

from .analyze_token_axis import TokenAxisTable
from .graph import LINEAR_F32, LINEAR_W8A8, MLP_W8A8, SHADOW_LINEAR, bindings, op_name, operands
from .token_axis_rules import TokenAxis

LINEAR, MLP, SHADOW, DYNAMIC, FLOAT = "linear", "mlp", "shadow", "dynamic", "float"
APPEND = "append"
_KERNELS = {LINEAR_W8A8: LINEAR, MLP_W8A8: MLP, SHADOW_LINEAR: SHADOW}
# A float linear is worth a function of its own, which can run beside attention of another chunk.
_PRODUCTS = ("relax.matmul", LINEAR_F32)


@dataclass(frozen=True)
class Stage:
    """A set of bindings that become one function call (or one cache append)."""

    level: int
    kind: str
    bindings: tuple[relax.VarBinding, ...]

    @property
    def reads(self) -> list[relax.Var]:
        """What the bindings read from outside, in order of first use (a canonical parameter order)."""
        defined = {binding.var for binding in self.bindings}
        found = [leaf for b in self.bindings for leaf in _variables(b)]
        return [var for var in dict.fromkeys(found) if var not in defined]


def find_stages(
    function: relax.Function,
    table: TokenAxisTable,
    inputs: Collection[relax.Var],
    returned: Collection[relax.Expr],
) -> list[Stage]:
    """Groups the bindings of ``function`` by level and kind, in an order that respects what they read.

    ``inputs`` are its arguments that are no parameters, ``returned`` its results.
    """
    levels: dict[relax.Var, tuple[int, str]] = {}
    groups: dict[tuple[int, str, relax.Var | None], list[relax.VarBinding]] = {}
    for binding in bindings(function):
        kind = _kind(binding, table, inputs)
        if kind == FLOAT and _continues_dynamic(binding, levels, inputs):
            kind = DYNAMIC
        read = [levels[leaf] for leaf in operands(binding.value) if leaf in levels]
        # An append is no function of its own: it happens on the level that made its rows.
        level = read[0][0] if kind == APPEND else _level(kind, read)
        levels[binding.var] = (level, kind)
        # One integer function is one kernel call.
        single = binding.var if kind in (LINEAR, MLP) else None
        groups.setdefault((level, kind, single), []).append(binding)
    stages = [Stage(level, kind, tuple(found)) for (level, kind, _), found in groups.items()]
    return _join_floats(sorted(stages, key=lambda stage: (stage.level, stage.kind == APPEND)), returned)


def _variables(binding: relax.VarBinding) -> list[relax.Var]:
    return [leaf for leaf in operands(binding.value) if isinstance(leaf, relax.Var)]


def _level(kind: str, read: Sequence[tuple[int, str]]) -> int:
    return max((level + (other != kind) for level, other in read), default=0)


def _kind(binding: relax.VarBinding, table: TokenAxisTable, inputs: Collection[relax.Var]) -> str:
    name = op_name(binding.value)
    if name in _KERNELS:
        return _KERNELS[name]
    if name == "relax.concat" and table.mixes(binding.var) and operands(binding.value)[0] in inputs:
        return APPEND
    rows = all(_holds_rows(table.axis(value)) for value in [binding.var, *_variables(binding)])
    return FLOAT if rows and not table.mixes(binding.var) else DYNAMIC


def _holds_rows(axis: TokenAxis | None) -> bool:
    """Whether a value is a weight, or has one row (first axis) for each new token: what a chunk can cut."""
    return axis is None or (axis.axis == 0 and isinstance(axis.tokens, relax.Var))


def _continues_dynamic(
    binding: relax.VarBinding, levels: Mapping[relax.Var, tuple[int, str]], inputs: Collection[relax.Var]
) -> bool:
    """Whether a token-wise op reads, apart from parameters, results of dynamic functions only."""
    if op_name(binding.value) in _PRODUCTS:
        return False
    read = _variables(binding)
    kinds = {levels[value][1] for value in read if value in levels}
    return kinds == {DYNAMIC} and not any(value in inputs for value in read)


def _join_floats(stages: Sequence[Stage], returned: Collection[relax.Expr]) -> list[Stage]:
    """Float stages that one float stage reads, and nothing else, become its beginning."""
    joined = dict(enumerate(stages))
    readers = _readers(stages)
    for i in reversed(range(len(stages))):
        values = {binding.var for binding in joined[i].bindings}
        found = set[int]().union(*(readers.get(value, ()) for value in values))
        if len(found) != 1 or not values.isdisjoint(returned):
            continue
        (reader,) = found
        if joined[i].kind == joined[reader].kind == FLOAT:
            beginning, end = joined.pop(i), joined[reader]
            joined[reader] = Stage(end.level, FLOAT, beginning.bindings + end.bindings)
            for value in beginning.reads:
                readers[value] = readers[value] - {i} | {reader}
    return list(joined.values())


def _readers(stages: Sequence[Stage]) -> dict[relax.Var, set[int]]:
    """The stages that read each value from outside, by number."""
    readers: dict[relax.Var, set[int]] = {}
    for i, stage in enumerate(stages):
        for value in stage.reads:
            readers.setdefault(value, set()).add(i)
    return readers
