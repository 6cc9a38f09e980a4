"""The MLP in one launch against its linears alone: packets of one context, by share of outliers.

    python -m tests.benchmarks.fused_mlp [MxKxCHANNELSxN ...] [--outliers 0,0.005,0.02] [--json]

The linears are the same kernels, called one by one. ``extra`` is what the fused kernel takes more: the
integer activation, the scans for outliers and their products; ``per_word`` is the packets of a word of
outliers (four channels of a row) for 32 outputs, against inputs of zeros; ``returning_bytes`` is what would
cross to the CPU and back instead: the sums, and the int8 values. Every result is compared bit for bit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import tvm

from targets.glu import activation_table, glu_format, glu_reference
from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.mlp import MlpShape, mlp_w8a8
from targets.hexagon.session import DeviceSession, open_session
from targets.hexagon.target import hexagon_target
from targets.hexagon.toolchain import link_server
from targets.outliers import split_bytes
from targets.packing import linear_w8a8_reference, pack_weight

SHAPES = ("64x1024x2816x1024", "16x2048x5504x2048", "16x4096x11008x4096")
OUTLIERS = "0,0.005,0.02"


class Case:
    """Random weights of a shape; a share of ``x`` and of the values between the linears is outliers."""

    def __init__(self, shape: MlpShape, outliers: float) -> None:
        rng = np.random.default_rng(0)
        m, k, channels, n = self.shape = shape
        x = np.rint(np.clip(rng.normal(0, 35, (m, k)), -127, 127))
        self.x = np.where(rng.random((m, k)) < outliers, 8 * x, x).astype(np.int16)
        weights = rng.integers(-127, 128, (2, k, channels), dtype=np.int8)
        self.gate_up = np.concatenate([pack_weight(weight) for weight in weights])
        self.down = pack_weight(rng.integers(-127, 128, (channels, n), dtype=np.int8))
        self.table = activation_table("silu")
        self.sums = _product(self.x, self.gate_up)
        scale = np.full(channels, 1.5 / self.sums.std(), np.float32)
        fine = glu_format(k, scale, scale, np.float64(1e-3))
        values = np.abs(glu_reference(self.sums, k, fine, self.table).astype(np.float64)) * 1e-3
        step = max(float(np.quantile(values, 1 - outliers)) / 127, 1e-3)
        self.format = glu_format(k, scale, scale, np.float64(step))
        self.h = glu_reference(self.sums, k, self.format, self.table)
        self.y = _product(self.h, self.down)
        self.word_products = _words(self.x) * len(self.gate_up) + _words(self.h) * len(self.down)


def _product(x: np.ndarray, packed: np.ndarray) -> np.ndarray:
    low, high = split_bytes(x)
    return linear_w8a8_reference(low, packed) + 256 * linear_w8a8_reference(high, packed)


def _words(x: np.ndarray) -> int:
    """Words of upper bytes that are not zero."""
    _, high = split_bytes(x)
    return int(np.count_nonzero(np.ascontiguousarray(high).view(np.int32)))


def measure(session: DeviceSession, name: str, case: Case) -> dict[str, object]:
    """One row of the table."""
    m, _, channels, n = case.shape
    weights = [session.upload(w) for w in (case.gate_up, case.down)]
    parameters = [session.upload(v) for v in (case.format.multipliers, case.format.shifts, case.table)]
    x, h = ([session.upload(half) for half in split_bytes(v)] for v in (case.x, case.h))
    sums, y = session.empty(case.sums.shape, "int32"), session.empty((m, n), "int32")
    scratch = [session.empty((m, channels), "int8") for _ in range(2)]

    def run(low: tvm.runtime.Tensor, high: tvm.runtime.Tensor) -> int:
        outputs = (sums, *scratch, y)
        return session.call(f"{name}_mlp", low, high, weights[0], *parameters, weights[1], *outputs).packets

    zeros = session.upload(np.zeros(case.x.shape, np.int8))
    plain, fused = run(zeros, zeros), run(*x)
    exact = np.array_equal(session.download(y, np.empty((m, n), np.int32)), case.y)
    linears = session.call(f"{name}_0", x[0], weights[0], sums).packets
    linears += session.call(f"{name}_1", h[0], weights[1], y).packets
    return {
        "shape": "x".join(map(str, case.shape)),
        "outliers_in": round(float(np.mean(split_bytes(case.x)[1] != 0)), 5),
        "outliers_between": round(float(np.mean(split_bytes(case.h)[1] != 0)), 5),
        "linears": linears,
        "fused": fused,
        "extra": round(fused / linears - 1, 4),
        "extra_per_channel": round((fused - linears) / (m * channels), 3),
        "per_word": round((fused - plain) / case.word_products, 3) if case.word_products else 0.0,
        "returning_bytes": m * channels * 9,
        "exact": exact,
    }


def _build(shapes: list[MlpShape], folder: Path) -> Path:
    kernels = {}
    for i, shape in enumerate(shapes):
        kernels[f"s{i}_mlp"] = mlp_w8a8(shape, hvx=True, name=f"s{i}_mlp")
        for j, linear in enumerate(shape.linears):
            kernels[f"s{i}_{j}"] = linear_w8a8(*linear, hvx=True, name=f"s{i}_{j}")
    build_object(kernels, hexagon_target("qcom/hexagon-v68").llvm_target(), folder / "kernels.o")
    return link_server([folder / "kernels.o"], "qemu", folder / "server")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="MxKxCHANNELSxN")
    parser.add_argument("--outliers", default=OUTLIERS, metavar="SHARE,...")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    shapes = [MlpShape(*map(int, shape.split("x"))) for shape in args.shapes]
    with tempfile.TemporaryDirectory() as folder:
        server = _build(shapes, Path(folder))
        for i, shape in enumerate(shapes):
            for share in map(float, args.outliers.split(",")):
                with open_session("qemu", server) as session:
                    row = measure(session, f"s{i}", Case(shape, share))
                print(
                    json.dumps(row) if args.json else "  ".join(f"{k} {v}" for k, v in row.items()),
                    flush=True,
                )


if __name__ == "__main__":
    main()
