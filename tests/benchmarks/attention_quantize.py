"""Attention that leaves int8 beside attention and quantization one after the other, in turns in one process.

``python -m tests.benchmarks.attention_quantize`` prints the time of both calls together over that of the
joint one: above 1 the joint one is faster. With one thread it is CPU time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

from targets.cpu.threads import THREADS_VARIABLE, use_threads
from tests.benchmarks.cpu_kernels import in_numpy_memory, turn
from tests.targets.cpu.helpers import virtual_machine
from tests.targets.cpu.test_attention_quantize import functions

# queries, keys, (heads, key heads, head_dim): prefill chunks and decode.
CASES = [
    (queries, keys, layout)
    for layout in ((16, 16, 128), (8, 1, 256), (32, 32, 80))
    for queries, keys in ((256, 256), (256, 1024), (64, 256), (1, 256))
]


def measure(
    queries: int, keys: int, layout: tuple[int, int, int], residual: bool, threads: int, rounds: int
) -> tuple[float, float]:
    """Best times in microseconds: (two calls, one call)."""
    heads, kv_heads, d = layout
    rng = np.random.default_rng(0)
    q, k, v = (
        in_numpy_memory(rng.standard_normal((1, rows, count, d), np.float32))
        for rows, count in ((queries, heads), (keys, kv_heads), (keys, kv_heads))
    )
    step = in_numpy_memory(np.full((1,), 0.01, np.float32).reshape(()))
    vm = virtual_machine(functions(*layout, per_channel=False, residual=residual))
    rows = in_numpy_memory(np.zeros((queries, heads * d), np.float32))

    def apart() -> None:
        vm["attention"](q, k, v)
        vm["quantize"](rows, step)

    runs: list[Callable[[], object]] = [apart, lambda: vm["joint"](q, k, v, step)]
    clock = time.process_time if threads == 1 else time.perf_counter
    times = [[turn(run, clock) for run in runs] for _ in range(rounds)]
    return min(first for first, _ in times), min(second for _, second in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    os.environ[THREADS_VARIABLE] = str(args.threads)
    use_threads(args.threads)
    for queries, keys, layout in CASES:
        for residual in (False, True):
            apart, joint = measure(queries, keys, layout, residual, args.threads, args.rounds)
            name = f"{queries} queries {keys} keys {'{}/{}x{}'.format(*layout)}"
            tail = "integers and residual" if residual else "integers"
            print(f"{name}, {tail}: {apart:.0f} us apart, {joint:.0f} us joint, ratio {apart / joint:.3f}")


if __name__ == "__main__":
    main()
