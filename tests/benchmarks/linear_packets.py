"""Multiply-accumulates per packet of the integer linear kernel, for whole calls.

    python -m tests.benchmarks.linear_packets

A Hexagon packet multiplies and accumulates at most 256 bytes, and 128 when M = 1: each weight vector is then
used once, and a packet loads one vector. Counts are exact and the same on every machine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.session import DeviceSession, open_session
from targets.hexagon.target import hexagon_target
from targets.hexagon.toolchain import link_server
from targets.packing import packed_shape

SHAPES = ("64x512x512", "256x512x512", "16x512x512", "1x512x512")


def _packets(device: DeviceSession, shape: str) -> int:
    m, k, n = map(int, shape.split("x"))
    x = device.upload(np.zeros((m, k), np.int8))
    packed = device.upload(np.zeros(packed_shape(k, n), np.uint8))
    return device.call(f"linear_{shape}", x, packed, device.empty((m, n), "int32")).packets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=SHAPES, help="MxKxN (default: %(default)s)")
    parser.add_argument("--target", default="qcom/hexagon-v68")
    options = parser.parse_args()
    kernels = {
        f"linear_{shape}": linear_w8a8(*map(int, shape.split("x")), hvx=True, name=f"linear_{shape}")
        for shape in options.shapes
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_object(kernels, hexagon_target(options.target).llvm_target(), folder / "kernels.o")
        server = link_server([folder / "kernels.o"], "qemu", folder / "server")
        with open_session("qemu", server) as device:
            _print_table(device, options.shapes)


def _print_table(device: DeviceSession, shapes: list[str]) -> None:
    print(f"{'MxKxN':>16} {'packets':>12} {'MAC/packet':>12}")
    for shape in shapes:
        packets = _packets(device, shape)
        macs = int(np.prod([int(size) for size in shape.split("x")]))
        print(f"{shape:>16} {packets:>12} {macs / packets:>12.1f}")


if __name__ == "__main__":
    main()
