"""tinygrad's Hexagon back end on the same product, in the emulator that runs our kernels; prints JSON.

    python -m tests.benchmarks.tinygrad_peer MxKxN

tinygrad calls ``clang`` and ``qemu-hexagon-static`` and counts instructions. Scripts in front of zig and
qemu-hexagon stand in for them, and the one in front of the compiler replaces the counter by that of packets.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mllm_tvm.tuning.profile_kernels import parse_shape
from mllm_tvm.tuning.workload import Shape

_COMPILER = """\
#!/bin/sh
# tinygrad's last argument is the output; it writes C to the standard input.
for out; do :; done
sed s/0x6a15c000/0x6a14c000/ | {python} -m ziglang cc -target hexagon-linux-musl -mv65 -mhvx=v65 \\
  -mhvx-length=128b -O2 -fPIC -fno-stack-protector -ffreestanding -nostdlib -static -x c - -o "$out"
"""
_EMULATOR = '#!/bin/sh\nexec qemu-hexagon -cpu v67 "$@"\n'


def tinygrad_row(shape: Shape) -> dict[str, object]:
    """Packets of ``x @ w`` for int8 x [m, k] and w [k, n] into int32, without row sums; None if not run."""
    row: dict[str, object] = {"shape": str(shape), "kernel": "tinygrad"}
    if importlib.util.find_spec("tinygrad") is None:
        return {**row, "packets": None, "mac_per_packet": None, "exact": None}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (
            ("clang", _COMPILER.format(python=sys.executable)),
            ("qemu-hexagon-static", _EMULATOR),
        ):
            (Path(folder) / name).write_text(text)
            (Path(folder) / name).chmod(0o755)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        found = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.tinygrad_peer", str(shape)],
            env={**os.environ, "PATH": path, "CC": "clang", "MOCKDSP": "1"},
            stdout=subprocess.PIPE,
            check=True,
        )
    return {**row, **json.loads(found.stdout.splitlines()[-1])}


def multiply(shape: Shape) -> dict[str, object]:
    """Runs the product on tinygrad's device "DSP"."""
    from tinygrad import Tensor, dtypes
    from tinygrad.helpers import Context, GlobalCounters

    rng = np.random.default_rng(shape.macs)
    x = rng.integers(-128, 128, (shape.m, shape.k), dtype=np.int8)
    w = rng.integers(-127, 128, (shape.k, shape.n), dtype=np.int8)
    operands = [Tensor(array, device="DSP").realize() for array in (x, w)]
    GlobalCounters.reset()
    # Only with debugging output does it time kernels; its clock is a counter of the emulator.
    with Context(DEBUG=2):
        y = operands[0].matmul(operands[1], dtype=dtypes.int32).realize()
    packets = round(GlobalCounters.time_sum_s * 1e9)
    exact = np.array_equal(y.numpy(), x.astype(np.int64) @ w.astype(np.int64))
    return {"packets": packets, "mac_per_packet": round(shape.macs / packets, 2), "exact": bool(exact)}


if __name__ == "__main__":
    print(json.dumps(multiply(parse_shape(sys.argv[1]))))
