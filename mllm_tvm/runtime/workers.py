"""The threads that run tasks: one owns the CPU functions, the other the device session."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from mllm_tvm.errors import ArtifactError, DeviceError
from mllm_tvm.manifest import FunctionSpec
from mllm_tvm.tensor_file import aligned_empty

from .expansion import Step
from .stats import NpuCounts
from .task_graph import PARAMETER_PREFIX
from .values import RunValues

T = TypeVar("T")


class Counters(Protocol):
    """What one kernel call cost on the device."""

    @property
    def packets(self) -> int: ...
    @property
    def instructions(self) -> int: ...
    @property
    def hvx_instructions(self) -> int: ...


class Session(Protocol):
    """The part of a device session that the NPU worker uses; errors are DeviceErrors."""

    def upload(self, array: np.ndarray, /) -> Any: ...
    def empty(self, shape: tuple[int, ...], dtype: str, /) -> Any: ...
    def write(self, tensor: Any, array: np.ndarray, /) -> None: ...
    def download(self, tensor: Any, out: np.ndarray, /) -> np.ndarray: ...
    def call(self, kernel: str, /, *tensors: Any) -> Counters: ...
    def close(self) -> None: ...


class Functions(Protocol):
    """A Relax virtual machine: compiled functions by name."""

    def __getitem__(self, name: str, /) -> Callable[..., Any]: ...


class Lane:
    """One thread that runs what is submitted, in order."""

    def __init__(self, name: str) -> None:
        # Not `self` in the initializer: a dropped lane should be freed at once, not by the garbage collector.
        idents: list[int] = []
        self._idents = idents
        self._executor = ThreadPoolExecutor(1, name, initializer=lambda: idents.append(threading.get_ident()))

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Run ``function`` on this thread."""
        return self._executor.submit(function, *args)

    def close(self, last: Callable[[], None] = lambda: None) -> None:
        """Run ``last`` on the thread after what was submitted, and end the thread.

        ``last`` runs here when the thread ended already (the interpreter joins it before exit handlers) or
        when this is the thread (an engine collected as garbage).
        """
        on_lane = threading.get_ident() in self._idents
        try:
            future = None if on_lane else self._executor.submit(last)
        except RuntimeError:
            future = None
        if future is None:
            last()
        self._executor.shutdown(wait=not on_lane)
        if future is not None:
            future.result()


class CpuWorker:
    """Runs steps on CPU functions, which are opened and called on a thread of their own.

    A virtual machine may not be used by two threads, and its kernels' thread pool belongs to the calling
    thread. Raises ArtifactError when a function in ``names`` is missing.
    """

    def __init__(self, open_functions: Callable[[], Functions], names: Iterable[str]) -> None:
        self.lane = Lane("mllm-cpu")
        self.functions: Mapping[str, Callable[..., Any]] = {}
        try:
            self.lane.submit(self._open, open_functions, list(names)).result()
        except BaseException:
            self.lane.close()
            raise

    def execute(self, step: Step, values: RunValues) -> None:
        """Run one step; call on the worker's thread."""
        result = self.functions[step.call.function](*values.arguments(step))
        values.store(step, _outputs(result, step.call.outputs))

    def close(self) -> None:
        """End the thread."""
        self.lane.close()

    def _open(self, open_functions: Callable[[], Functions], names: Sequence[str]) -> None:
        library = open_functions()
        self.functions = {name: _find(library, name) for name in names}


class NpuWorker:
    """Runs integer functions on a device session, which lives on a thread of its own.

    Weights are uploaded once, when the worker is made. Activation buffers are kept per shape; they have as
    many rows as the chunk is long. Rows beyond a chunk's tokens are zero: the time of an outlier's product
    must not depend on what was there.
    """

    def __init__(self, open_session: Callable[[], Session], weights: Mapping[str, np.ndarray]) -> None:
        self.lane = Lane("mllm-npu")
        self.counts = NpuCounts()
        self._weights: dict[str, Any] = {}
        self._buffers: dict[tuple[str, str, int, int], Any] = {}
        self._session: Session | None = None
        try:
            self.lane.submit(self._open, open_session, weights).result()
        except BaseException:
            self.close()
            raise

    def execute(self, step: Step, values: RunValues) -> None:
        """Run one step; call on the worker's thread. Raises DeviceError when the device fails."""
        arguments = zip(step.call.args, values.arguments(step), strict=True)
        activations = [np.from_dlpack(v) for name, v in arguments if not name.startswith(PARAMETER_PREFIX)]
        values.store(step, [self._call(step, activations)])

    def close(self) -> None:
        """Close the session and end the thread; a device that died already is no error."""
        self.lane.close(self._close)

    def _open(self, open_session: Callable[[], Session], weights: Mapping[str, np.ndarray]) -> None:
        self._session = open_session()
        for name, weight in weights.items():
            self._weights[name] = self._session.upload(weight)

    def _close(self) -> None:
        session, self._session = self._session, None
        self._weights.clear()
        self._buffers.clear()
        if session is not None:
            with contextlib.suppress(DeviceError):
                session.close()

    def _call(self, step: Step, activations: Sequence[np.ndarray]) -> np.ndarray:
        """[n, K] int8 each -> [n, N] int32, through device buffers of the chunk's length."""
        assert self._session is not None
        function, length = step.function, step.plan.length
        inputs = [self._buffer(f"x{i}", "int8", length, function.k) for i in range(len(activations))]
        for x, rows in zip(inputs, activations, strict=True):
            self._session.write(x, _padded(rows, length))
        names = (arg.removeprefix(PARAMETER_PREFIX) for arg in step.call.args)
        weights = [self._weights[name] for name in names if name in self._weights]
        y = self._buffer("y", "int32", length, function.n)
        scratch = self._scratch(function, length)
        cost = self._session.call(f"{function.name}_m{length}", *inputs, *weights, *scratch, y)
        self.counts = self.counts.plus(cost.packets, cost.instructions, cost.hvx_instructions)
        return self._session.download(y, aligned_empty((len(activations[0]), function.n), "int32"))

    def _scratch(self, function: FunctionSpec, length: int) -> list[Any]:
        """The sums of gate and up and the activated values, which stay on the device."""
        if function.kind != "mlp":
            return []
        sums = self._buffer("sums", "int32", length, 2 * function.padded_channels)
        return [sums, *(self._buffer(half, "int8", length, function.channels) for half in ("low", "high"))]

    def _buffer(self, role: str, dtype: str, rows: int, columns: int) -> Any:
        key = (role, dtype, rows, columns)
        if key not in self._buffers:
            assert self._session is not None
            self._buffers[key] = self._session.empty((rows, columns), dtype)
        return self._buffers[key]


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    """``rows`` with zeros below, ``length`` in all."""
    if len(rows) == length:
        return rows
    padded = aligned_empty((length, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)], padded[len(rows) :] = rows, 0
    return padded


def _outputs(result: Any, names: Sequence[str]) -> Sequence[Any]:
    """What a compiled function returned, as one value per output."""
    return [result] if len(names) == 1 else result


def _find(library: Functions, name: str) -> Callable[..., Any]:
    try:
        return library[name]
    except Exception as error:  # the type TVM raises for a missing function is not documented
        raise ArtifactError(f"the CPU library has no function {name!r}; compile the model again") from error
