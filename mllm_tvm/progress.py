"""Progress bars, on a terminal only and on the error stream, so piped output stays clean; times of stages."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

StageObserver = Callable[[str, float], None]
"""Called with a stage's name and seconds when it has ended."""


def progress(total: int, description: str, unit: str = "it", show: bool = True) -> tqdm:
    """A bar to use as a context manager, with ``update(n)`` and ``set_postfix_str(text)``.

    Args:
        total: how many ``unit`` the work has.
        description: what the work is.
        unit: what is counted.
        show: False for no bar even on a terminal.
    """
    # disable=None is tqdm's "off unless the stream is a terminal".
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        file=sys.stderr,
        disable=None if show else True,
        leave=False,
        dynamic_ncols=True,
    )


@dataclass(frozen=True)
class Stages:
    """Measures the stages of a piece of work for ``on_stage``; None measures nothing."""

    on_stage: StageObserver | None = None

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measures the stage that is the body of the ``with`` statement."""
        begin = time.perf_counter()
        yield
        if self.on_stage is not None:
            self.on_stage(name, time.perf_counter() - begin)
