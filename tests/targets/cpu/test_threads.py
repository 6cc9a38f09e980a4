"""The number of threads: from the environment, within what the pool has."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from targets.cpu.threads import threads_setting, use_threads
from targets.errors import TargetError
from tests.targets.cpu.helpers import with_threads


def test_the_environment_sets_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", "3")
    assert threads_setting() == 3
    monkeypatch.delenv("TVM_NUM_THREADS")
    assert threads_setting() == 1


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_a_bad_number_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", value)
    with pytest.raises(TargetError, match=f"TVM_NUM_THREADS={value}: expected a positive number"):
        threads_setting()


def test_a_thread_uses_what_it_asks_for() -> None:
    def used() -> np.ndarray:
        return np.array(tvm.get_global_func("runtime.NumThreads")())

    assert [int(with_threads(count, used)) for count in (1, 2)] == [1, 2]


def test_more_threads_than_the_pool_has_are_refused() -> None:
    def more() -> np.ndarray:
        use_threads(2)
        return np.empty(0)

    with pytest.raises(TargetError, match="2 CPU threads: this thread's pool has 1; set TVM_NUM_THREADS"):
        with_threads(1, more)
