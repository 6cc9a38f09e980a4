"""Devices behind a TVM RPC tracker: the Hexagon executable travels to the host that emulates it."""

from __future__ import annotations

import re
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import tvm.error
import tvm.rpc
from tvm.rpc import base

from targets.errors import DeviceError

_ADDRESS = re.compile(r"(?P<host>[^/:\s]+):(?P<port>\d{1,5})")
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_RETURN_SECONDS = 10.0
_LOST_DEVICES = 6
_RESTART_SECONDS = 1.0

_LAUNCHER = """\
#!/bin/sh
# Runs the Hexagon executable that follows the last line of this script.
command -v qemu-hexagon > /dev/null || { echo "qemu-hexagon is not installed here" >&2; exit 127; }
elf=$(mktemp) && tail -c +%06d "$0" > "$elf" && chmod u+x "$elf" && exec < "$elf" && rm -f "$elf" || exit 1
exec qemu-hexagon -cpu v67 /proc/self/fd/0 "$@"
"""


class TrackedDevice(NamedTuple):
    """A session with a device of a tracker, and the address of the RPC server it came from."""

    rpc: tvm.rpc.RPCSession
    address: tuple[str, int]


@dataclass(frozen=True)
class Tracker:
    """Where a TVM RPC tracker listens."""

    host: str
    port: int

    @staticmethod
    def parse(text: str) -> Tracker:
        """The tracker at ``host:port``; raises DeviceError for anything else."""
        match = _ADDRESS.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 1 << 16:
            raise DeviceError(f"bad tracker address {text!r}: expected host:port, for example 127.0.0.1:9190")
        return Tracker(match["host"], int(match["port"]))

    def __str__(self) -> str:
        return f"tracker {self.host}:{self.port}"

    def connect(self) -> TrackerClient:
        """A connection; raises DeviceError when there is no tracker."""
        try:
            return TrackerClient(self)
        except OSError as error:
            raise DeviceError(
                f"cannot reach an RPC tracker at {self.host}:{self.port}: {error}. "
                f"Start one with `mllm-tvm device tracker --port {self.port}`"
            ) from error

    def local_address(self) -> str:
        """The address of this host that the tracker sees."""
        with self.connect() as client:
            return client.local_address()


class TrackerClient:
    """One connection to a tracker, which speaks TVM's JSON messages; a context manager."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._socket = socket.create_connection((tracker.host, tracker.port), timeout=_CONNECT_SECONDS)
        try:
            self._socket.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
            if struct.unpack("<i", base.recvall(self._socket, 4))[0] != base.RPC_TRACKER_MAGIC:
                raise OSError("what listens there is no RPC tracker")
        except OSError:
            self._socket.close()
            raise
        self._socket.settimeout(_ANSWER_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def local_address(self) -> str:
        return str(self._socket.getsockname()[0])

    def devices(self) -> dict[str, list[tuple[str, int]]]:
        """The addresses of the devices that are registered now, free or not, by key."""
        found: dict[str, list[tuple[str, int]]] = {}
        for server in self._ask([base.TrackerCode.SUMMARY])["server_info"]:
            host, port = server["addr"]
            found.setdefault(server["key"].removeprefix("server:"), []).append((str(host), int(port)))
        return found

    def free(self) -> dict[str, int]:
        """How many devices of each key are free."""
        queues = self._ask([base.TrackerCode.SUMMARY])["queue_info"]
        return {key: max(0, queue["free"] - queue["pending"]) for key, queue in queues.items()}

    def ports(self, key: str) -> set[int]:
        """The ports of the devices of ``key``."""
        return {port for _, port in self.devices().get(key, [])}

    def request(self, key: str, seconds: float) -> tuple[str, int, str]:
        """Host, port and one-time key of a device, once one is free; raises DeviceError when none is."""
        self._socket.settimeout(seconds)
        try:
            host, port, match_key = self._ask([base.TrackerCode.REQUEST, key, "", 1])
        except TimeoutError:
            raise DeviceError(
                f"{self._tracker}: no device {key!r} became free within {seconds:g} s; "
                "end another session, or serve more with `mllm-tvm device serve --devices N`"
            ) from None
        return str(host), int(port), str(match_key)

    def _ask(self, message: list[object]) -> Any:
        base.sendjson(self._socket, message)
        code, value = base.recvjson(self._socket)
        if code != base.TrackerCode.SUCCESS:
            raise DeviceError(f"{self._tracker} answered {message[0]} with {code}: {value}")
        return value


def self_contained_launcher(server: Path) -> bytes:
    """A shell script that carries the Hexagon executable ``server`` and runs it under qemu-hexagon."""
    length = len(_LAUNCHER % 0)
    # tail counts bytes from 1.
    return (_LAUNCHER % (length + 1)).encode() + server.read_bytes()


def connect_device(tracker: Tracker, key: str, server: Path, free_seconds: float) -> TrackedDevice:
    """Start ``server`` on a device that is registered as ``key``, and connect to it.

    Waits at most ``free_seconds`` for a device to become free. Raises DeviceError when the tracker cannot be
    reached, knows no such key, has no free device, or the device cannot start ``server``.
    """
    launcher = self_contained_launcher(server)
    deadline = time.monotonic() + free_seconds
    for _ in range(_LOST_DEVICES):
        host, port, match_key = _request(tracker, key, max(1.0, deadline - time.monotonic()))
        try:
            arguments = ["rpc.PopenSession", launcher]
            rpc = tvm.rpc.connect(host, port, match_key, session_constructor_args=arguments)
            return TrackedDevice(rpc, (host, port))
        except tvm.error.RPCError as error:
            raise DeviceError(
                f"device {key!r} of {tracker} did not start {server.name}: {error}. "
                "Its host needs qemu-hexagon (`apt-get install qemu-user`)"
            ) from error
        except (RuntimeError, OSError) as error:
            # The device went away after the tracker had named it; its farm may be starting it again.
            lost = error
            time.sleep(_RESTART_SECONDS)
    raise DeviceError(f"{tracker}: {_LOST_DEVICES} devices {key!r} could not be reached: {lost}") from lost


def _request(tracker: Tracker, key: str, seconds: float) -> tuple[str, int, str]:
    try:
        with tracker.connect() as client:
            _wait_for_key(tracker, client, key)
            return client.request(key, seconds)
    except OSError as error:
        raise DeviceError(f"{tracker} is gone: {error}") from error


def _wait_for_key(tracker: Tracker, client: TrackerClient, key: str) -> None:
    """Returns when a device of ``key`` is registered: a request for an unknown key would wait for ever."""
    deadline = time.monotonic() + _RETURN_SECONDS
    while key not in (served := client.devices()):
        # The tracker remembers keys: the devices of this one may be about to come back.
        if key not in client.free() or time.monotonic() > deadline:
            raise DeviceError(
                f"{tracker} has no device {key!r}; it has {sorted(served) or 'none'}. "
                f"Serve some with `mllm-tvm device serve --tracker {tracker.host}:{tracker.port}`"
            )
        time.sleep(0.1)
