"""How many threads the kernels use."""

from __future__ import annotations

import tvm

from targets.errors import TargetError


def configure_threads(count: int) -> None:
    """Let kernels that the calling thread runs use ``count`` threads, itself included.

    The pool belongs to the calling thread; results do not depend on it. The environment variable
    TVM_BIND_THREADS should be 0, or all pools' threads are pinned to the first cores.
    Raises TargetError when ``count`` is not positive.
    """
    if count < 1:
        raise TargetError(f"{count} CPU threads: expected at least 1")
    # Mode 1: threads count from the fastest cores.
    tvm.get_global_func("runtime.config_threadpool")(1, count)
