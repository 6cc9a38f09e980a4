"""The integer linear beside its peers, in one run on one emulator, each result checked bit for bit.

    python -m tests.benchmarks.kernel_peers [MxKxN ...] [--json]

TVM's default schedule and plain C by zig's clang -O3 compute the same function from the same packed weights
and are linked into the same device server as our kernels. tinygrad (``pip install -e '.[peers]'``) makes
programs of its own, from weights in its own layout; it computes the bare product.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tvm

from mllm_tvm.tuning.bench import ReferenceCase
from mllm_tvm.tuning.log import TuningLog
from mllm_tvm.tuning.profile_kernels import parse_shape
from mllm_tvm.tuning.workload import Shape, workload
from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.session import DeviceSession, open_session
from targets.hexagon.target import HexagonTarget, hexagon_target
from targets.hexagon.tiling import rule_tiling
from targets.hexagon.toolchain import include_flags, link_server
from tests.benchmarks.tinygrad_peer import tinygrad_row

SHAPES = ("64x512x512",)

# The TVM FFI calling convention: 16-byte values, the DLTensor pointer in the second half.
PLAIN_C = """\
#include <dlpack/dlpack.h>
#include <stdint.h>
#include <tvm/ffi/c_api.h>

static void linear(const int8_t* restrict x, const uint8_t* restrict w, int32_t* restrict y) {
  for (int i = 0; i < %(m)d; ++i)
    for (int j = 0; j < %(n)d / 32; ++j)
      for (int c = 0; c < 32; ++c) {
        int32_t sum = 0;
        for (int k = 0; k < %(k)d / 4; ++k)
          for (int b = 0; b < 4; ++b)
            sum += x[i * %(k)d + 4 * k + b] * (w[((j * (%(k)d / 4) + k) * 32 + c) * 4 + b] - 128);
        y[i * %(n)d + 32 * j + c] = sum;
      }
}

int __tvm_ffi_%(name)s(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
  (void)self, (void)count, (void)result;
  const DLTensor* t[3];
  for (int i = 0; i < 3; ++i) t[i] = (const DLTensor*)args[i].v_ptr;
  linear(t[0]->data, t[1]->data, t[2]->data);
  return 0;
}

int TVMFFIEnvModRegisterSystemLibSymbol(const char* name, void* symbol);
__attribute__((constructor)) static void add(void) {
  TVMFFIEnvModRegisterSystemLibSymbol("__tvm_ffi_%(name)s", (void*)__tvm_ffi_%(name)s);
}
"""


def compile_plain_c(shape: Shape, name: str, target: HexagonTarget, out: Path) -> None:
    """The loop nest anybody would write, by the C compiler that builds the device server."""
    source = out.with_suffix(".c")
    source.write_text(PLAIN_C % {"m": shape.m, "k": shape.k, "n": shape.n, "name": name})
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "hexagon-linux-musl", "-O3", "-mhvx"]
    command += [f"-mv{min(target.version, 68)}", *include_flags(), "-c", str(source), "-o", str(out)]
    subprocess.run(command, check=True)


def build(shape: Shape, target: HexagonTarget, folder: Path) -> tuple[Path, list[str]]:
    """A device server with the peers of one shape, and their names."""
    tuned = TuningLog(target).best(shape)
    kernels = {"ours_untuned": linear_w8a8(*shape, hvx=True, name="ours_untuned", tiling=rule_tiling(*shape))}
    if tuned is not None:
        kernels["ours_tuned"] = linear_w8a8(*shape, hvx=True, name="ours_tuned", tiling=tuned)
    default = workload(shape)["main"].with_attr("global_symbol", "tvm_default")
    build_object({"tvm_default": default, **kernels}, target.llvm_target(), folder / "kernels.o")
    compile_plain_c(shape, "plain_c", target, folder / "plain_c.o")
    server = link_server([folder / "kernels.o", folder / "plain_c.o"], "qemu", folder / "server")
    return server, ["tvm_default", "plain_c", *kernels]


def run(session: DeviceSession, shape: Shape, names: Sequence[str]) -> list[dict[str, object]]:
    """One row for each peer."""
    case = ReferenceCase.of(shape)
    x, w = session.upload(case.x), session.upload(case.w)
    rows = []
    for name in names:
        y = session.empty(case.y.shape, "int32")
        counters = session.call(name, x, w, y)
        rows.append(
            {
                "shape": str(shape),
                "kernel": name,
                "packets": counters.packets,
                "mac_per_packet": round(shape.macs / counters.packets, 2),
                "exact": bool((session.download(y) == case.y).all()),
            }
        )
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", default=SHAPES, help="MxKxN (default: 64x512x512)")
    parser.add_argument("--target", default="qcom/hexagon-v68")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for shape in map(parse_shape, options.shapes):
        with tempfile.TemporaryDirectory() as folder:
            server, names = build(shape, hexagon_target(options.target), Path(folder))
            with open_session("qemu", server) as session:
                rows += [*run(session, shape, names), tinygrad_row(shape)]
    print(json.dumps(rows) if options.json else _table(rows))


def _table(rows: Sequence[dict[str, object]]) -> str:
    header = f"{'MxKxN':>16} {'kernel':>14} {'packets':>12} {'MAC/packet':>10}  exact"
    lines = [
        f"{row['shape']:>16} {row['kernel']:>14} {row['packets']:>12} {row['mac_per_packet']:>10}  "
        f"{'yes' if row['exact'] else 'NO'}"
        if row["packets"]
        else f"{row['shape']:>16} {row['kernel']:>14} not installed"
        for row in rows
    ]
    return "\n".join([f"TVM {tvm.__version__}, qemu-hexagon, one context", header, *lines])


if __name__ == "__main__":
    main()
