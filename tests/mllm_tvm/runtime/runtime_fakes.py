"""A two-layer model as NumPy functions, a device that runs its linears, a policy of random legal orders."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from mllm_tvm.errors import DeviceError
from mllm_tvm.manifest import CacheSpec, Call, FunctionSpec, Graph
from mllm_tvm.runtime.policies import PolicyOf
from mllm_tvm.runtime.policy import Policy
from mllm_tvm.runtime.runner import ModelRunner, RunnerConfig
from mllm_tvm.runtime.tasks import Program
from mllm_tvm.runtime.workers import Session
from targets.packing import linear_w8a8_reference, pack_weight

VOCAB, HIDDEN, HEAD_DIM, LAYERS, CONTEXT = 50, 8, 4, 2, 64
CHUNK_LENGTHS = (16, 4)


def make_graph() -> Graph:
    """embed, then per layer: linear (q, k, v), split, attention, linear with its shadow, and the head."""
    calls = [Call("embed", -1, ("input_ids", "positions", "param:table"), ("x0", "xq0"))]
    caches = []
    for i in range(LAYERS):
        calls += [
            Call("linear_8x32", i, (f"xq{i}", f"param:qkv{i}"), (f"acc{i}",)),
            Call("split", i, (f"acc{i}", "param:scale"), (f"q{i}", f"k{i}", f"v{i}")),
            Call("attention", i, (f"q{i}", f"k_cache_{i}", f"v_cache_{i}"), (f"mixed{i}", f"residual{i}")),
            Call("linear_8x32", i, (f"mixed{i}", f"param:out{i}"), (f"projected{i}",)),
            Call("shadow", i, (f"residual{i}", "param:table"), (f"outliers{i}",)),
            Call("join", i, (f"x{i}", f"projected{i}", f"outliers{i}"), (f"x{i + 1}", f"xq{i + 1}")),
        ]
        caches += [CacheSpec(f"{c}_cache_{i}", f"{c}{i}", (1, HEAD_DIM)) for c in "kv"]
    calls.append(Call("head", LAYERS, (f"x{LAYERS}", "param:table"), ("logits",)))
    functions = [
        FunctionSpec("linear_8x32", "npu", "linear", 8, 32),
        FunctionSpec("attention", "cpu", "dynamic"),
        FunctionSpec("shadow", "cpu", "shadow"),
    ]
    functions += [FunctionSpec(name, "cpu", "float") for name in ("embed", "split", "join", "head")]
    return Graph(tuple(functions), tuple(calls), tuple(caches), "logits")


def make_parameters(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    parameters = {"table": rng.standard_normal((VOCAB, HIDDEN)).astype(np.float32)}
    parameters["scale"] = np.asarray(0.01, np.float32)
    for i in range(LAYERS):
        for name in (f"qkv{i}", f"out{i}"):
            parameters[name] = pack_weight(rng.integers(-9, 9, (8, 32)).astype(np.int8))
    return parameters


def _quantize(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x * 16), -127, 127).astype(np.int8)


def _embed(ids: np.ndarray, positions: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, ...]:
    assert ids.dtype == positions.dtype == np.int32
    x = table[ids] + np.float32(0.01) * positions[:, None].astype(np.float32)
    return x, _quantize(x)


def _split(acc: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
    y = acc.astype(np.float32) * scale
    return y[:, :4], y[:, None, 4:8], y[:, None, 8:12]


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
    """Row by row, so that the number of rows does not change a result."""
    past = len(k) - len(q)
    rows = []
    for i, row in enumerate(q):
        scores = (k[: past + i + 1, 0] * row).sum(axis=1)
        weights = np.exp(scores - scores.max())
        rows.append((weights[:, None] * v[: past + i + 1, 0]).sum(axis=0) / weights.sum())
    y = np.tile(np.stack(rows), 2).astype(np.float32)
    return _quantize(y), np.where(np.abs(y) > 7, y, 0).astype(np.float32)


def _rowwise_dot(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return (x[:, None, :] * w[None]).sum(axis=2)


def _join(x: np.ndarray, acc: np.ndarray, outliers: np.ndarray) -> tuple[np.ndarray, ...]:
    y = x + np.tanh(acc[:, :HIDDEN].astype(np.float32) * np.float32(0.001)) + outliers
    return y, _quantize(y)


FUNCTIONS: dict[str, Callable] = {
    "embed": _embed,
    "linear_8x32": linear_w8a8_reference,
    "split": _split,
    "attention": _attention,
    "shadow": lambda r, table: _rowwise_dot(r, table[:HIDDEN]),
    "join": _join,
    "head": _rowwise_dot,
}


def reference_logits(ids: list[int], parameters: dict[str, np.ndarray]) -> np.ndarray:
    """The whole sequence at once, without chunks, caches or threads: [seq, vocab]."""
    values = {f"param:{name}": value for name, value in parameters.items()}
    values["input_ids"] = np.asarray(ids, np.int32)
    values["positions"] = np.arange(len(ids), dtype=np.int32)
    graph = make_graph()
    for call in graph.calls:
        for cache in graph.caches:
            if cache.rows in values:
                values[cache.name] = values[cache.rows]
        result = FUNCTIONS[call.function](*[values[arg] for arg in call.args])
        values.update(zip(call.outputs, result if len(call.outputs) > 1 else [result], strict=True))
    return values["logits"]


class FakeTensor:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array


@dataclass
class FakeSession:
    """Runs ``linear_KxN_mM`` on "device" tensors; dies at the ``dies_at``-th call."""

    dies_at: int = -1
    jitter: random.Random | None = None
    calls: list[str] = field(default_factory=list)
    uploads: int = 0
    closed: bool = False

    def upload(self, array: np.ndarray) -> FakeTensor:
        self.uploads += 1
        return FakeTensor(array.copy())

    def empty(self, shape: tuple[int, ...], dtype: str) -> FakeTensor:
        return FakeTensor(np.full(shape, 99, dtype))

    def write(self, tensor: FakeTensor, array: np.ndarray) -> None:
        assert array.dtype == tensor.array.dtype
        tensor.array[: len(array)] = array

    def download(self, tensor: FakeTensor, out: np.ndarray) -> np.ndarray:
        assert out.dtype == tensor.array.dtype
        out[...] = tensor.array[: len(out)]
        return out

    def call(self, kernel: str, x: FakeTensor, w: FakeTensor, y: FakeTensor) -> SimpleNamespace:
        self.calls.append(kernel)
        if len(self.calls) == self.dies_at:
            raise DeviceError("the device died")
        assert kernel == f"linear_8x32_m{len(x.array)}"
        if self.jitter:
            time.sleep(self.jitter.random() * 5e-4)
        self.write(y, linear_w8a8_reference(x.array, w.array))
        return SimpleNamespace(packets=10, instructions=20, hvx_instructions=5)

    def close(self) -> None:
        self.closed = True


class RandomOrder(Policy):
    """Any ready task; now and then none, as long as something runs."""

    def __init__(self, program: Program, seed: int = 0) -> None:
        super().__init__(program)
        self._random = random.Random(seed)
        self._ready: list[int] = []
        self._running = 0

    def start(self) -> None:
        self._ready.clear()
        self._running = 0
        super().start()

    def on_ready(self, task: int) -> None:
        self._ready.append(task)

    def complete(self, task: int) -> None:
        super().complete(task)
        self._running -= 1

    def choose(self, processor: str) -> int | None:
        mine = [task for task in self._ready if self.program.tasks[task].processor == processor]
        if not mine or (self._running and self._random.random() < 0.2):
            return None
        task = self._random.choice(mine)
        self._ready.remove(task)
        self._running += 1
        return task


def make_runner(
    session: Session | None = None,
    policy: str | PolicyOf = "paper",
    chunk_lengths: tuple[int, ...] = CHUNK_LENGTHS,
    functions: dict[str, Callable] | None = None,
) -> ModelRunner:
    parameters = make_parameters()
    config = RunnerConfig(chunk_lengths, CONTEXT, HIDDEN, policy)
    library = FUNCTIONS if functions is None else functions
    device = session or FakeSession()
    return ModelRunner(make_graph(), parameters, parameters, lambda: library, lambda: device, config)
