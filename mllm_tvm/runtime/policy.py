"""What a scheduling policy is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .tasks import TaskState


class Policy(ABC):
    """Chooses the next task of a processor; made anew for each run."""

    def __init__(self, state: TaskState) -> None:
        self._state = state

    def on_ready(self, task: int) -> None:  # noqa: B027 - a policy listens to what it needs
        """All dependencies of ``task`` have ended."""

    def on_last_dependency(self, task: int) -> None:  # noqa: B027
        """Exactly one dependency of ``task`` is left."""

    @abstractmethod
    def choose(self, processor: str) -> int | None:
        """Remove and return a ready task of ``processor``, or None to leave it idle for now."""
