"""The shortest schedule of a small task graph, exactly: a constraint model solved by OR-Tools (optional)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from mllm_tvm.runtime.scheduler import simulate
from mllm_tvm.runtime.tasks import PROCESSORS, Task, program_order

from .errors import SimulationError

RESOLUTION = 100_000
"""Durations are rounded to the longest one over this."""
_STRATEGIES = 2
"""Searches that run side by side: one alone misses easy proofs, many only compete for the cores."""


def optimal_makespan(
    tasks: Sequence[Task], limit_s: float = 10.0, processors: Sequence[str] = PROCESSORS
) -> float:
    """Seconds of the shortest schedule of ``tasks``.

    Raises SimulationError when OR-Tools is not installed or does not prove an optimum within ``limit_s``, and
    ScheduleError for tasks that cannot be scheduled.
    """
    ordered = program_order(tasks, processors)
    unit = max((task.duration for task in ordered), default=0.0) / RESOLUTION
    if unit == 0.0:
        return 0.0
    cp_model = _import_solver()
    model = cp_model.CpModel()
    # A schedule that is nearly optimal bounds all starts, which makes the proof much shorter; each of its
    # tasks may be rounded up.
    known = max(span.end for span in simulate(ordered, "ours", processors))
    makespan = _constrain(model, ordered, unit, ceil(known / unit) + len(ordered))
    model.minimize(makespan)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = _STRATEGIES
    solver.parameters.max_time_in_seconds = limit_s
    # It would leave Ctrl-C ending the process at once, with nothing closed.
    solver.parameters.catch_sigint_signal = False
    if solver.solve(model) != cp_model.OPTIMAL:
        raise SimulationError(
            f"no proven optimum of {len(ordered)} tasks in {limit_s} s: use the lower bound"
        )
    return float(solver.objective_value) * unit


def _constrain(model: Any, tasks: Sequence[Task], unit: float, horizon: int) -> Any:
    """Adds starts, dependencies and processors to the model; its makespan variable."""
    lengths = {task.id: round(task.duration / unit) for task in tasks}
    starts = {task.id: model.new_int_var(0, horizon, f"start{task.id}") for task in tasks}
    intervals: dict[str, list[Any]] = {}
    makespan = model.new_int_var(0, horizon, "makespan")
    for task in tasks:
        start, length = starts[task.id], lengths[task.id]
        interval = model.new_fixed_size_interval_var(start, length, f"task{task.id}")
        intervals.setdefault(task.processor, []).append(interval)
        model.add(makespan >= start + length)
        for dependency in task.deps:
            model.add(start >= starts[dependency] + lengths[dependency])
    for on_processor in intervals.values():
        model.add_no_overlap(on_processor)
    return makespan


def _import_solver() -> Any:
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise SimulationError(
            f"exact schedules need OR-Tools ({error}): pip install mllm-tvm[optimum]"
        ) from error
    return cp_model
