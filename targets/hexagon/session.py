"""Sessions with a device that runs a server of kernels: tensors on the device, kernel calls, their cost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import tvm
import tvm.rpc
import tvm_ffi

from targets.errors import DeviceError
from targets.hexagon.process import DeviceProcess
from targets.hexagon.toolchain import find_qemu
from targets.hexagon.tracker import Tracker, connect_device
from targets.hexagon.transfer import SharedMemory, Transfer, connect_data, share_memory
from targets.hexagon.watchdog import ConnectionBreaker, Watchdog

_TRACKER = re.compile(r"tracker://(?P<host>[^/:]+):(?P<port>\d{1,5})/(?P<key>.+)")
_RPC_PREFIX = "RPCError: Error caught from RPC call:\n"
_DTYPE_KINDS = "biuf"
_GRACE_SECONDS = 5.0


class Counters(NamedTuple):
    """Work of one kernel call, as the emulator counts it; no packets and instructions on device "host".

    ``packets`` are those on the longest path: the serial parts of the kernel, and in each parallel loop the
    hardware context that had most to do. The other counts are sums over all contexts; ``contexts`` says how
    many there were.
    """

    packets: int
    instructions: int
    hvx_instructions: int
    total_packets: int
    contexts: int


@dataclass(frozen=True)
class SessionConfig:
    """How long a session waits, and how it may copy.

    ``call_seconds``: a request that takes longer counts as hung, and its device is given up (whole seconds).
    ``free_seconds``: how long to wait until a device of a tracker is free. ``share_memory`` and
    ``data_connection``: which ways may be tried to copy past TVM's RPC, to a device of a tracker that is on
    this machine, and to one that is not.
    """

    call_seconds: int = 120
    free_seconds: float = 60.0
    share_memory: bool = True
    data_connection: bool = True

    def __post_init__(self) -> None:
        if self.call_seconds < 1 or self.free_seconds <= 0:
            raise DeviceError(
                f"bad {self}: expected at least one second for calls, and more than 0 for waiting"
            )


class DeviceSession:
    """Tensors and kernels of one device process; use it from one thread at a time.

    Every method raises DeviceError: when the device refuses a request the session stays usable, when the
    device is gone or does not answer in time the session is closed, and its tensors with it. An interrupt
    (Ctrl-C) during a request closes it too.
    """

    def __init__(
        self,
        device: str,
        rpc: tvm.rpc.RPCSession,
        config: SessionConfig,
        process: DeviceProcess | None = None,
        address: tuple[str, int] | None = None,
    ) -> None:
        self._device = device
        self._rpc = rpc
        self._config = config
        self._process = process
        self._memory = rpc.cpu(0)
        self._functions: dict[str, tvm_ffi.Function] = {}
        self._transfer: Transfer | None = None
        self._breaker = ConnectionBreaker(address) if address else None
        self._watchdog = Watchdog(config.call_seconds + _GRACE_SECONDS, self._give_up)
        self._closed = False
        try:
            self._prepare(address[0] if address else None)
        except BaseException:
            self.close()
            raise

    def _prepare(self, host: str | None) -> None:
        with self._request("list its kernels"):
            self._kernels = tuple(str(self._function("mllm.kernels")()).split())
            self._function("mllm.limit_calls")(self._config.call_seconds)
            self._transfer = self._open_transfer(host)

    @property
    def device(self) -> str:
        """What the session was opened with: "qemu", "host" or "tracker://host:port/key"."""
        return self._device

    @property
    def pid(self) -> int | None:
        """Process id of a device on this machine, None for one behind a tracker."""
        return self._process.pid if self._process else None

    def kernels(self) -> list[str]:
        """Names of the kernels this device has."""
        return list(self._kernels)

    def empty(self, shape: Sequence[int], dtype: str) -> tvm.runtime.Tensor:
        """A tensor on the device, 128-byte aligned, with unspecified contents; freed when dropped."""
        if np.dtype(dtype).kind not in _DTYPE_KINDS:
            raise DeviceError(f"cannot put dtype {dtype} on a device: expected booleans, integers or floats")
        with self._request(f"allocate a tensor of shape {list(shape)} {dtype}"):
            return tvm.runtime.empty(tuple(shape), dtype, self._memory)

    def upload(self, array: np.ndarray) -> tvm.runtime.Tensor:
        """A tensor on the device with the shape, dtype and contents of ``array``."""
        tensor = self.empty(array.shape, str(array.dtype))
        self.write(tensor, array)
        return tensor

    def write(self, tensor: tvm.runtime.Tensor, array: np.ndarray) -> None:
        """Copy ``array`` to the first rows of ``tensor``: same dtype and row shape, at most as many rows."""
        self._check_tensors([tensor])
        _check_rows(tensor, array)
        if array.size == 0:
            return
        with self._request(f"receive {array.nbytes} bytes"):
            source = np.ascontiguousarray(array).reshape(array.shape)
            if not (self._transfer and self._transfer.write(tensor, _bytes(source))):
                _rows_view(tensor, array.shape).copyfrom(source)

    def download(self, tensor: tvm.runtime.Tensor, out: np.ndarray | None = None) -> np.ndarray:
        """Copy ``tensor``, or as many first rows of it as ``out`` has, to ``out`` (default: a new array).

        ``out`` has the dtype and row shape of ``tensor`` and is C-contiguous. Returns ``out``.
        """
        self._check_tensors([tensor])
        array = np.empty(tensor.shape, dtype=str(tensor.dtype)) if out is None else out
        _check_rows(tensor, array)
        if not array.flags["C_CONTIGUOUS"] or not array.flags["WRITEABLE"]:
            raise DeviceError("cannot download into this array: expected a writable C-contiguous one")
        if array.size == 0:
            return array
        with self._request(f"send {array.nbytes} bytes"):
            if not (self._transfer and self._transfer.read(tensor, _bytes(array))):
                _rows_view(tensor, array.shape).copyto(tvm_ffi.from_dlpack(array))
        return array

    def call(self, kernel: str, *tensors: tvm.runtime.Tensor) -> Counters:
        """Run ``kernel`` on ``tensors`` of this device, to its end, and return what it cost."""
        if kernel not in self._kernels:
            raise DeviceError(f"device {self._device!r} has no kernel {kernel!r}; it has {self.kernels()}")
        self._check_tensors(tensors)
        with self._request(f"run kernel {kernel}"):
            counts = self._function(kernel)(*tensors)
        return Counters(*struct.unpack("<5q", bytes(counts)))

    def use_contexts(self, count: int) -> None:
        """Let later calls run parallel loops on ``count`` hardware contexts, 1 to 4 (default: 4)."""
        with self._request(f"use {count} contexts"):
            self._function("mllm.use_contexts")(count)

    def close(self) -> None:
        """End the session and its device process; the tensors become unusable. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._watchdog.close()
        self._functions.clear()
        if self._process:
            self._process.close()
        else:
            self._rpc._sess["CloseRPCConnection"]()
        for resource in (self._transfer, self._breaker):
            if resource is not None:
                resource.close()
        self._transfer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _function(self, name: str) -> tvm_ffi.Function:
        if name not in self._functions:
            try:
                self._functions[name] = self._rpc.get_function(name)
            except AttributeError as error:
                raise DeviceError(
                    f"the server of device {self._device!r} has no {name!r}: it was built by another version "
                    "of mllm-tvm; compile the model again"
                ) from error
        return self._functions[name]

    def _open_transfer(self, host: str | None) -> Transfer | None:
        if self._process:
            return SharedMemory(self._rpc, os.dup(self._process.memory_fd))
        transfer: Transfer | None = share_memory(self._rpc) if self._config.share_memory else None
        if transfer is None and host is not None and self._config.data_connection:
            transfer = connect_data(self._rpc, host)
        return transfer

    def _give_up(self) -> None:
        """Ends a request that nobody answers; its waiter gets an error."""
        if self._process and self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
        if self._breaker:
            self._breaker()

    def _check_tensors(self, tensors: Sequence[object]) -> None:
        for i, tensor in enumerate(tensors):
            if not isinstance(tensor, tvm.runtime.Tensor) or tensor.device != self._memory:
                raise DeviceError(
                    f"argument {i} ({type(tensor).__name__}) is not a tensor of this session on device "
                    f"{self._device!r}: make it with upload or empty"
                )

    @contextmanager
    def _request(self, action: str) -> Iterator[None]:
        if self._closed:
            raise DeviceError(f"cannot ask device {self._device!r} to {action}: the session is closed")
        begin = time.monotonic()
        self._watchdog.begin()
        # Compiling with TVM leaves system calls that restart after Ctrl-C (its arithmetic solver puts the
        # handler back with `signal`): the wait for an answer would go on.
        signal.siginterrupt(signal.SIGINT, True)
        try:
            try:
                yield
            except RuntimeError as error:
                raise self._failure(action, error, time.monotonic() - begin) from error
        except KeyboardInterrupt:
            # The answer is still to come: client and device are out of step.
            self._give_up()
            self.close()
            raise
        finally:
            self._watchdog.end()

    def _failure(self, action: str, error: RuntimeError, seconds: float) -> DeviceError:
        # A device behind a tracker is two connections away, and each adds the prefix.
        reason = str(error).replace(_RPC_PREFIX, "").strip()
        # An exception packet leaves client and device in step; after anything else the connection is lost.
        if isinstance(error, tvm.error.RPCError) and (self._process or self._answers()):
            return DeviceError(f"device {self._device!r} refused to {action}: {reason}")
        cause = (self._process.death() if self._process else None) or reason
        if seconds >= self._config.call_seconds:
            cause = f"it did not answer within {self._config.call_seconds} s ({cause})"
        self.close()
        return DeviceError(
            f"device {self._device!r} was lost when asked to {action}: {cause}. "
            "Open a new session and upload its tensors again"
        )

    def _answers(self) -> bool:
        """Whether a device behind a tracker still runs: its host reports a death like a refusal."""
        try:
            self._rpc.get_function("mllm.kernels")
        except (RuntimeError, AttributeError):
            return False
        return True


def open_session(device: str, server: Path, config: SessionConfig | None = None) -> DeviceSession:
    """Start ``server``, the output of ``link_server``, on ``device`` and connect to it.

    ``device`` is "qemu" (a Hexagon ELF in the emulator on this machine), "host" (an executable for this CPU)
    or "tracker://host:port/key" (a Hexagon ELF on a device of that key). Raises DeviceError when the device
    is unknown or does not start, ToolchainError when device "qemu" has no emulator.
    """
    if not os.access(server, os.X_OK) or not server.is_file():
        raise DeviceError(f"device server {server} is not an executable file: build it with link_server")
    path, config = str(server.resolve()), config or SessionConfig()
    if device == "qemu":
        return _open_local(device, [str(find_qemu()), "-cpu", "v67", path], config)
    if device == "host":
        return _open_local(device, [path], config)
    match = _TRACKER.fullmatch(device)
    if match is None:
        raise DeviceError(f"unknown device {device!r}: expected 'qemu', 'host' or 'tracker://host:port/key'")
    tracker = Tracker.parse(f"{match['host']}:{match['port']}")
    tracked = connect_device(tracker, match["key"], server, config.free_seconds)
    return DeviceSession(device, tracked.rpc, config, address=tracked.address)


def _open_local(device: str, command: list[str], config: SessionConfig) -> DeviceSession:
    process = DeviceProcess(command)
    return DeviceSession(device, process.rpc, config, process)


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _rows_view(tensor: tvm.runtime.Tensor, shape: tuple[int, ...]) -> tvm.runtime.Tensor:
    return tensor if tuple(tensor.shape) == shape else tensor._create_view(shape)


def _check_rows(tensor: tvm.runtime.Tensor, array: np.ndarray) -> None:
    shape = tuple(tensor.shape)
    same_rows = array.ndim == len(shape) and array.shape[1:] == shape[1:]
    if same_rows and array.shape[:1] <= shape[:1] and str(array.dtype) == str(tensor.dtype):
        return
    raise DeviceError(
        f"array of shape {array.shape} {array.dtype} does not fit a device tensor of shape {shape} "
        f"{tensor.dtype}: expected the same dtype and row shape, and at most as many rows"
    )
