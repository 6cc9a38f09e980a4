"""The functions of a chunk's program, and how neighbours on the NPU become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .cost import Work


@dataclass(frozen=True)
class Op:
    """One function of a layer. ``in_bytes`` and ``out_bytes`` are a row's activations, in and out."""

    name: str
    layer: int
    processor: str
    work: Work
    deps: tuple[str, ...]
    in_bytes: int = 0
    out_bytes: int = 0
    head: bool = False
    """Runs on the last row of the prompt only."""
    parts: tuple[str, ...] = ()
    """Functions it was joined from; empty for one that stands alone."""

    @property
    def function(self) -> str:
        """What it computes, without the layer."""
        return "+".join(self.parts) or self.name.split(".", 1)[1]

    @property
    def reads_cache(self) -> bool:
        """Whether it attends to earlier chunks."""
        return self.work.context_macs > 0

    def cost(self) -> Work:
        """Its work; on the NPU with the transfers."""
        if self.processor != "npu":
            return self.work
        return replace(self.work, io_bytes=self.in_bytes + self.out_bytes)


def join_chains(ops: Sequence[Op]) -> tuple[Op, ...]:
    """Joins each NPU function to the one before it when neither has another neighbour."""
    consumers: dict[str, int] = {}
    for op in ops:
        for dep in op.deps:
            consumers[dep] = consumers.get(dep, 0) + 1
    fused: dict[str, Op] = {}
    renamed: dict[str, str] = {}
    for op in ops:
        deps = tuple(dict.fromkeys(renamed[dep] for dep in op.deps))
        before = fused[deps[0]] if len(deps) == 1 else None
        chain = before is not None and consumers[op.deps[0]] == 1 and len(op.deps) == 1
        # What attends to earlier chunks is not shared by chunks, and so no part of a shared function.
        chain = chain and before is not None and not before.reads_cache and not op.reads_cache
        if before is not None and chain and before.processor == op.processor == "npu":
            fused[before.name] = _join(before, op)
            renamed[op.name] = before.name
        else:
            fused[op.name] = replace(op, deps=deps)
            renamed[op.name] = op.name
    return tuple(fused.values())


def _join(first: Op, second: Op) -> Op:
    parts = (*first.function.split("+"), second.function)
    return replace(first, work=first.work + second.work, out_bytes=second.out_bytes, parts=parts)
