"""Prefills ready to run, kept for prompts of the same length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from .durations import Durations
from .expansion import TaskGraph
from .planner import ChunkCosts, ChunkPlan, plan_prefill
from .policies import PolicyOf
from .scheduler import Scheduler
from .task_graph import CallGraph
from .tasks import Span

KEPT = 8
"""Prefills that are kept, those used last: a few hundred bytes for each of their tasks."""
MAX_DRIFT = 0.2
"""A prefill whose durations have moved by more than this share is planned anew: noise is up to a tenth."""


class PreparedPrefill(NamedTuple):
    """How a prompt is cut, the tasks of its prefill and their scheduler, at the beginning of a run."""

    chunks: tuple[ChunkPlan, ...]
    graph: TaskGraph
    scheduler: Scheduler


class PreparedPrefills:
    """Prepares prefills, and keeps them while the durations that they were planned with hold."""

    def __init__(self, calls: CallGraph, costs: ChunkCosts, policy: PolicyOf, durations: Durations) -> None:
        self._calls = calls
        self._costs = costs
        self._policy = policy
        self._durations = durations
        self._kept: dict[tuple[int, bool], PreparedPrefill] = {}

    def get(self, tokens: int, all_logits: bool) -> PreparedPrefill:
        """The prefill of that many tokens; it is the caller's until it asks for the next one."""
        prepared = self._kept.pop((tokens, all_logits), None)
        if prepared is None:
            prepared = self._prepare(plan_prefill(tokens, self._costs), all_logits)
        elif self._durations.drift(prepared.graph) > MAX_DRIFT:
            prepared = self._prepare(prepared.chunks, all_logits)
        else:
            prepared.scheduler.start()
        self._kept[tokens, all_logits] = prepared
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return prepared

    def learn(self, graph: TaskGraph, timeline: Iterable[Span]) -> None:
        """Take the times of a run into the durations."""
        self._durations.learn(graph, timeline)

    def _prepare(self, chunks: tuple[ChunkPlan, ...], all_logits: bool) -> PreparedPrefill:
        graph = self._calls.expand(chunks, self._durations, all_logits)
        program = replace(graph.program, duration_error=self._durations.error(graph))
        return PreparedPrefill(chunks, graph, Scheduler(program, self._policy))
