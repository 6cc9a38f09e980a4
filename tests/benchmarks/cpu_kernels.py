"""CPU kernels beside PyTorch's and ONNX Runtime's, in one run: ``python -m tests.benchmarks.cpu_kernels``.

In each round every implementation is called for a while in turn, so that what else the machine does hits all
of them; the best call counts. Before its turn each waits until the threads of the one before, which spin for
a while in the hope of more work, have left the processors. With one thread it is the CPU time of this
process, which other processes disturb less than the wall's. ``ratio`` is the best peer's time over ours:
above 1 ours is faster. Needs onnxruntime besides the project's test extra; without it that column is empty.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import tvm
import tvm_ffi
from onnx import TensorProto, helper
from tvm import relax

from mllm_tvm.tensor_file import aligned_empty
from targets.cpu.threads import THREADS_VARIABLE, use_threads
from targets.packing import pack_weight, pack_weight_f32
from tests.targets.cpu.helpers import Function, module, virtual_machine

Run = Callable[[], object]

# A turn's calls last so long: the first ones wake the threads, the clock and the caches.
_TURN_S = 0.05
# Longer than any of the thread pools spins.
_SETTLE_S = 0.05


@dataclass(frozen=True)
class Case:
    """One computation: our function, its arguments, PyTorch's call, and an ONNX node with its inputs."""

    name: str
    function: Function
    arguments: tuple[np.ndarray, ...]
    torch: Callable[..., torch.Tensor]
    torch_arguments: tuple[np.ndarray, ...]
    onnx_op: str
    onnx_attributes: dict[str, object]
    onnx_arguments: tuple[np.ndarray, ...]
    onnx_output: tuple[int, ...]
    onnx_domain: str = ""


def _linear_f32(rows: int, k: int, n: int) -> Case:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, k), np.float32), rng.standard_normal((k, n), np.float32)
    packed = pack_weight_f32(w)

    def body(dims: dict[str, object], a: relax.Expr, b: relax.Expr) -> relax.Expr:
        out = relax.TensorType([dims["rows"], n], "float32")
        return relax.op.call_dps_packed("mllm.linear_f32", (a, b), out)

    function = Function(((("rows", k), "float32"), (packed.shape, "float32")), body)
    transposed = np.ascontiguousarray(w.T)
    return Case(
        f"linear f32 {rows}x{k}x{n}", function, (x, packed), F.linear, (x, transposed),
        "MatMul", {}, (x, w), (rows, n),
    )  # fmt: skip


def _linear_int8(rows: int, k: int, n: int) -> Case:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-127, 128, shape, dtype=np.int8) for shape in ((rows, k), (k, n)))
    packed = pack_weight(w)

    def body(dims: dict[str, object], a: relax.Expr, b: relax.Expr) -> relax.Expr:
        out = relax.TensorType([dims["rows"], n], "int32")
        return relax.op.call_dps_packed("mllm.linear_w8a8", (a, b), out)

    function = Function(((("rows", k), "int8"), (packed.shape, "uint8")), body)
    # ONNX Runtime's fast kernel takes unsigned activations; torch._int_mm needs more than 16 rows.
    unsigned = (x.astype(np.int16) + 128).astype(np.uint8)
    zero_points = (np.array(128, np.uint8), np.array(0, np.int8))
    return Case(
        f"linear int8 {rows}x{k}x{n}", function, (x, packed), torch._int_mm, (x, w),
        "MatMulInteger", {}, (unsigned, w, *zero_points), (rows, n),
    )  # fmt: skip


def _attention(queries: int, keys: int, heads: int, kv_heads: int, head_dim: int) -> Case:
    """Causal; the queries are the last ones. The peers get a layout by head, and a mask."""
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, queries, heads, head_dim), np.float32)
    k, v = (rng.standard_normal((1, keys, kv_heads, head_dim), np.float32) for _ in range(2))
    function = Function(
        tuple(
            ((1, length, count, head_dim), "float32")
            for length, count in (("s", heads), ("t", kv_heads), ("t", kv_heads))
        ),
        lambda _, a, b, c: relax.op.nn.attention(a, b, c, causal_mask="BottomRight"),
    )
    by_head = tuple(np.ascontiguousarray(a.transpose(0, 2, 1, 3)) for a in (q, k, v))
    mask = np.arange(keys)[None] <= np.arange(queries)[:, None] + keys - queries
    bias = np.where(mask, 0, -1e9).astype(np.float32)
    square = queries == keys
    return Case(
        f"attention {queries} queries {keys} keys {heads}/{kv_heads}x{head_dim}", function, (q, k, v),
        lambda a, b, c, m: F.scaled_dot_product_attention(
            a, b, c, attn_mask=None if square else m, is_causal=square, enable_gqa=heads > kv_heads
        ), (*by_head, bias),
        "Attention", {}, (*by_head, bias), (1, heads, queries, head_dim),
    )  # fmt: skip


def _rms_norm(rows: int, width: int) -> Case:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, width), np.float32), rng.standard_normal(width, np.float32)
    function = Function(
        ((("rows", width), "float32"), ((width,), "float32")),
        lambda _, a, b: relax.op.nn.rms_norm(a, b, axes=-1, epsilon=1e-5),
    )
    return Case(
        f"rms_norm {rows}x{width}", function, (x, w), lambda a, b: F.rms_norm(a, (width,), b, 1e-5), (x, w),
        "RMSNormalization", {"axis": -1, "epsilon": 1e-5}, (x, w), (rows, width),
    )  # fmt: skip


def _layer_norm(rows: int, width: int) -> Case:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, width), np.float32)
    w, b = rng.standard_normal((2, width), np.float32)
    function = Function(
        ((("rows", width), "float32"), ((width,), "float32"), ((width,), "float32")),
        lambda _, a, w_, b_: relax.op.nn.layer_norm(a, w_, b_, axes=-1, epsilon=1e-5),
    )
    return Case(
        f"layer_norm {rows}x{width}", function, (x, w, b),
        lambda a, c, d: F.layer_norm(a, (width,), c, d, 1e-5), (x, w, b),
        "LayerNormalization", {"axis": -1, "epsilon": 1e-5}, (x, w, b), (rows, width),
    )  # fmt: skip


def _attentions(heads: int) -> Iterator[Case]:
    for queries in (256, 64, 16, 1):
        for keys in (256, 1024, 2048):
            yield _attention(queries, keys, heads, heads, 128)
        yield _attention(queries, 1024, 2 * heads, max(1, heads // 2), 64)


def cases(size: int) -> list[Case]:
    """The shapes of a model of hidden size ``size``: prefill chunks and decode."""
    return [
        _linear_f32(256, size, size),
        _linear_f32(16, size, size),
        _linear_f32(1, size, size),
        _linear_int8(256, size, size),
        _linear_int8(64, size, size),
        _linear_int8(1, size, size),
        *_attentions(size // 128),
        _rms_norm(256, size),
        _layer_norm(256, size),
    ]


def _ours(case: Case) -> Run:
    vm = virtual_machine(module({"f": case.function}))
    tensors = [in_numpy_memory(array) for array in case.arguments]
    return lambda: vm["f"](*tensors)


def in_numpy_memory(array: np.ndarray) -> tvm.runtime.Tensor:
    """An aligned copy in the kind of memory the peers read: NumPy asks for huge pages, TVM does not."""
    copy = aligned_empty(array.shape, str(array.dtype))
    copy[...] = array
    return tvm_ffi.from_dlpack(copy)


def _torch(case: Case) -> Run:
    tensors = [torch.from_numpy(array) for array in case.torch_arguments]

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return case.torch(*tensors)

    return run


def _onnxruntime(case: Case, threads: int) -> Run:
    import onnxruntime as ort

    types = {np.float32: TensorProto.FLOAT, np.int8: TensorProto.INT8, np.uint8: TensorProto.UINT8}
    names = [f"a{i}" for i in range(len(case.onnx_arguments))]
    # The first input only: weights are constants, which the runtime packs once.
    constants = [i for i in range(1, len(names)) if case.onnx_op != "Attention"]
    # q, k, v, mask.
    node = helper.make_node(case.onnx_op, names, ["y"], domain=case.onnx_domain, **case.onnx_attributes)
    values = [
        helper.make_tensor_value_info(names[i], types[array.dtype.type], array.shape)
        for i, array in enumerate(case.onnx_arguments)
    ]
    tensors = [
        helper.make_tensor(names[i], types[a.dtype.type], a.shape, a.tobytes(), raw=True)
        for i, a in enumerate(case.onnx_arguments)
        if i in constants
    ]
    kind = TensorProto.INT32 if case.onnx_op == "MatMulInteger" else TensorProto.FLOAT
    output = helper.make_tensor_value_info("y", kind, case.onnx_output)
    inputs = [value for i, value in enumerate(values) if i not in constants]
    graph = helper.make_graph([node], "g", inputs, [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {names[i]: a for i, a in enumerate(case.onnx_arguments) if i not in constants}
    return lambda: session.run(None, feeds)


def _implementations(case: Case, threads: int) -> Iterator[tuple[str, Run]]:
    yield "ours", _ours(case)
    makers = {"torch": lambda: _torch(case), "onnxruntime": lambda: _onnxruntime(case, threads)}
    for name, make in makers.items():
        try:
            run = make()
            run()
        except Exception as error:  # a peer without this kernel, or not installed: its column is empty
            print(f"# {name} has no {case.name}: {str(error).splitlines()[0][:150]}", flush=True)
        else:
            yield name, run


def measure(case: Case, threads: int, rounds: int) -> dict[str, object]:
    """Best time of each implementation in microseconds, and the best peer's over ours."""
    runs = dict(_implementations(case, threads))
    best = dict.fromkeys(runs, float("inf"))
    clock = time.process_time if threads == 1 else time.perf_counter
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(_SETTLE_S)
            best[name] = min(best[name], turn(run, clock))
    peers = [value for name, value in best.items() if name != "ours"]
    ratio = round(min(peers) / best["ours"], 3) if peers else None
    times = {name: round(value, 1) for name, value in best.items()}
    return {"kernel": case.name, "threads": threads, "us": times, "ratio": ratio}


def turn(run: Run, clock: Callable[[], float]) -> float:
    """Microseconds of the fastest call of a turn."""
    end = time.perf_counter() + _TURN_S
    best = float("inf")
    while time.perf_counter() < end:
        begin = clock()
        run()
        best = min(best, (clock() - begin) * 1e6)
    return best


def main() -> None:
    """Measure all cases with one thread and with two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, metavar="N", help="hidden size (2048)")
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="turns of each (12)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains this")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], metavar="N", help="1 2")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each case")
    args = parser.parse_args()
    os.environ[THREADS_VARIABLE] = str(max(args.threads))
    for threads in args.threads:
        use_threads(threads)
        torch.set_num_threads(threads)
        for case in cases(args.size):
            if args.only in case.name:
                result = measure(case, threads, args.rounds)
                print(json.dumps(result) if args.json else _line(result), flush=True)


def _line(result: dict[str, object]) -> str:
    times = ", ".join(f"{name} {value}" for name, value in result["us"].items())  # type: ignore[attr-defined]
    return f"{result['kernel']:42} {result['threads']} thread(s): {times} us; ratio {result['ratio']}"


if __name__ == "__main__":
    main()
