"""Bulk copies to and from a device, by the fastest way there is to it."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

import tvm
import tvm.rpc

from targets.errors import DeviceError

_TOKEN_BYTES = 16
_FILE_BYTES = 1 << 42
_LEAST_SHARED_BYTES = 4096
_CONNECT_SECONDS = 5.0


class Transfer(Protocol):
    """A way to copy bytes between a tensor's start and this process; False when it has no way."""

    def write(self, tensor: tvm.runtime.Tensor, data: memoryview) -> bool: ...
    def read(self, tensor: tvm.runtime.Tensor, data: memoryview) -> bool: ...
    def close(self) -> None: ...


def create_shared_file() -> int:
    """A memory file for the tensors of a device on this machine: parts of it take memory once written."""
    fd = os.memfd_create("mllm-device-memory", 0)
    os.ftruncate(fd, _FILE_BYTES)
    return fd


class SharedMemory:
    """Tensors of 4 KiB and more live in a file that both sides have open: a copy is one copy."""

    def __init__(self, rpc: tvm.rpc.RPCSession, fd: int) -> None:
        self._fd = fd
        self._file_offset = rpc.get_function("mllm.file_offset")

    def write(self, tensor: tvm.runtime.Tensor, data: memoryview) -> bool:
        return self._copy(os.pwrite, tensor, data)

    def read(self, tensor: tvm.runtime.Tensor, data: memoryview) -> bool:
        return self._copy(lambda fd, part, offset: os.preadv(fd, [part], offset), tensor, data)

    def close(self) -> None:
        os.close(self._fd)

    def _copy(
        self, copy: Callable[[int, memoryview, int], int], tensor: tvm.runtime.Tensor, data: memoryview
    ) -> bool:
        if len(data) < _LEAST_SHARED_BYTES:
            return False
        start = int(self._file_offset(tensor))
        if start < 0:
            return False
        done = 0
        while done < len(data):
            try:
                done += copy(self._fd, data[done:], start + done)
            except OSError as error:
                raise DeviceError(f"cannot copy {len(data)} bytes in shared memory: {error}") from error
        return True


class DataConnection:
    """A socket of its own to a device on another machine; requests only announce what passes there."""

    def __init__(self, rpc: tvm.rpc.RPCSession, connection: socket.socket) -> None:
        self._connection = connection
        self._receive, self._send = rpc.get_function("mllm.receive"), rpc.get_function("mllm.send")

    def write(self, tensor: tvm.runtime.Tensor, data: memoryview) -> bool:
        return self._copy(self._receive, tensor, len(data), lambda: self._connection.sendall(data))

    def read(self, tensor: tvm.runtime.Tensor, data: memoryview) -> bool:
        return self._copy(self._send, tensor, len(data), lambda: self._read_exactly(data))

    def close(self) -> None:
        self._connection.close()

    def _copy(self, announce: Any, tensor: tvm.runtime.Tensor, size: int, copy: Callable[[], None]) -> bool:
        failures: list[OSError] = []

        def run() -> None:
            try:
                copy()
            except OSError as error:
                failures.append(error)
                self._break()

        # Neither side can wait for the other to be done first: sockets hold little.
        thread = threading.Thread(target=run)
        thread.start()
        try:
            announce(tensor, 0, size)
        except BaseException:
            self._break()
            raise
        finally:
            thread.join()
        if failures:
            raise DeviceError(f"the data connection failed: {failures[0]}") from failures[0]
        return True

    def _read_exactly(self, data: memoryview) -> None:
        done = 0
        while done < len(data):
            count = self._connection.recv_into(data[done:])
            if count == 0:
                raise OSError("the device closed it")
            done += count

    def _break(self) -> None:
        # Wakes whoever reads or writes, here and on the device.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


def share_memory(rpc: tvm.rpc.RPCSession) -> SharedMemory | None:
    """Shared memory with a device that may be on this machine; None when it is not."""
    token = secrets.token_hex(_TOKEN_BYTES)
    fd = create_shared_file()
    try:
        os.pwrite(fd, token.encode(), 0)
        if int(rpc.get_function("mllm.share")(f"/proc/{os.getpid()}/fd/{fd}", token)):
            return SharedMemory(rpc, fd)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def connect_data(rpc: tvm.rpc.RPCSession, host: str) -> DataConnection | None:
    """A data connection to a device on ``host``; None when there is no way for one."""
    token = secrets.token_hex(_TOKEN_BYTES)
    try:
        address = int.from_bytes(socket.inet_aton(socket.gethostbyname(host)), "big")
        port = int(rpc.get_function("mllm.listen")(address))
        connection = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
    except (OSError, tvm.error.RPCError):
        return None
    try:
        connection.settimeout(None)
        connection.sendall(token.encode())
        rpc.get_function("mllm.accept")(token)
    except (OSError, tvm.error.RPCError):
        connection.close()
        return None
    return DataConnection(rpc, connection)
