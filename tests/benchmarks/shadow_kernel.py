"""What the shadow kernel costs by the number of outliers: proportional to them, next to nothing without.

    python -m tests.benchmarks.shadow_kernel [--rows 256] [--size 2048]

Prints one JSON object: the time of a ``rows x size x size`` shadow linear without outliers, with some in each
row (hot or cold), and with every value one, each as a multiple of the time without; ``scan`` is the search
alone (32 output columns), and ``quantize`` what NumPy takes to round and clip the same values once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import tvm

from targets.cpu.shadow import shadow_linear
from targets.packing import pack_weight
from tests.targets.cpu.helpers import Kernel

_REPEATS = 30


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--size", type=int, default=2048)
    args = parser.parse_args()
    kernel = Kernel(shadow_linear("float16"))
    share = 0.0045
    cases = {"none": (0.0, True), "hot": (share, True), "cold": (share, False), "all cold": (1.0, False)}
    seconds = {n: _shadow(kernel, args.rows, args.size, args.size, *case) for n, case in cases.items()}
    seconds["scan"] = _shadow(kernel, args.rows, args.size, 32, 0.0, True)
    x = np.random.default_rng(0).standard_normal((args.rows, args.size), np.float32)
    seconds["quantize"] = _least(lambda: np.clip(np.rint(x * np.float32(20)), -127, 127).astype(np.int8))
    report = {name: round(value / seconds["none"], 2) for name, value in seconds.items()}
    print(json.dumps({"share": share, "none_us": round(1e6 * seconds["none"]), "times_none": report}))


def _shadow(kernel: Kernel, rows: int, k: int, n: int, share: float, hot: bool) -> float:
    rng = np.random.default_rng(0)
    residual = np.where(rng.random((rows, k)) < share, rng.standard_normal((rows, k)), 0).astype(np.float32)
    slots = np.arange(k, dtype=np.int32) if hot else np.full(k, -1, np.int32)
    arrays = (
        residual,
        pack_weight(rng.integers(-127, 128, (k, n)).astype(np.int8)),
        np.ones(n, np.float32),
        np.array(0.1, np.float32),
        slots,
        rng.standard_normal((k, n)).astype(np.float16),
        np.zeros(4, np.int64),
        np.empty((rows, n), np.float32),
    )
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    return _least(lambda: kernel.library["kernel"](*tensors))


def _least(run: Callable[[], object]) -> float:
    """The shortest of some runs, seconds."""
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


if __name__ == "__main__":
    main()
