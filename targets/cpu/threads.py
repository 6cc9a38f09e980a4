"""How many threads the kernels use."""

from __future__ import annotations

import os

import tvm

from targets.errors import TargetError

THREADS_VARIABLE = "TVM_NUM_THREADS"


def threads_setting() -> int:
    """The value of the environment variable TVM_NUM_THREADS, 1 if it is not set.

    One is the default because the device, or what simulates it, works at the same time. Raises TargetError
    when it is not a positive number.
    """
    value = os.environ.get(THREADS_VARIABLE, "1")
    if not value.isdecimal() or int(value) < 1:
        raise TargetError(f"the environment has {THREADS_VARIABLE}={value}: expected a positive number")
    return int(value)


def use_threads(count: int) -> None:
    """Let kernels that the calling thread runs use ``count`` threads, itself included.

    The pool belongs to the calling thread and is made by its first kernel or call of this function; results
    do not depend on it. TVM_BIND_THREADS should be 0, or all pools' threads are pinned to the first cores.
    Raises TargetError when ``count`` is more than TVM_NUM_THREADS was when the pool was made.
    """
    # Mode 1 counts from the fastest cores.
    tvm.get_global_func("runtime.config_threadpool")(1, count)
    used = tvm.get_global_func("runtime.NumThreads")()
    if used != count:
        raise TargetError(
            f"{count} CPU threads: this thread's pool has {used}; "
            f"set {THREADS_VARIABLE} to at least {count} before it runs anything"
        )
