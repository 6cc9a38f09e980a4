"""Devices behind a TVM RPC tracker: the Hexagon executable travels to the host that emulates it."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import tvm.rpc

from targets.errors import DeviceError

_CONNECT_SECONDS = 5.0
_FREE_DEVICE_SECONDS = 30.0

_LAUNCHER = """\
#!/bin/sh
# Runs the Hexagon executable that follows the last line of this script.
command -v qemu-hexagon > /dev/null || { echo "qemu-hexagon is not installed here" >&2; exit 127; }
elf=$(mktemp) && tail -c +%06d "$0" > "$elf" && chmod u+x "$elf" && exec < "$elf" && rm -f "$elf" || exit 1
exec qemu-hexagon -cpu v67 /proc/self/fd/0 "$@"
"""


def self_contained_launcher(server: Path) -> bytes:
    """A shell script that carries the Hexagon executable ``server`` and runs it under qemu-hexagon."""
    length = len(_LAUNCHER % 0)
    # tail counts bytes from 1.
    return (_LAUNCHER % (length + 1)).encode() + server.read_bytes()


def connect_device(host: str, port: int, key: str, server: Path) -> tvm.rpc.RPCSession:
    """Start ``server`` on a free device that is registered as ``key``, and connect to it.

    Waits at most 30 s for a device to become free. Raises DeviceError when the tracker cannot be reached,
    knows no such key, has no free device, or the device cannot start ``server``.
    """
    tracker = _connect_tracker(host, port)
    try:
        _wait_for_free_device(tracker, key, f"tracker {host}:{port}")
        arguments = ["rpc.PopenSession", self_contained_launcher(server)]
        return tracker.request(key, max_retry=1, session_constructor_args=arguments)
    except (RuntimeError, OSError) as error:
        raise DeviceError(
            f"device {key!r} of tracker {host}:{port} did not start {server.name}: {error}. "
            "Its host needs qemu-hexagon (`apt-get install qemu-user`)"
        ) from error
    finally:
        tracker.close()


def _connect_tracker(host: str, port: int) -> tvm.rpc.TrackerSession:
    try:
        # TVM itself would try for a minute.
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        return tvm.rpc.connect_tracker(host, port)
    except (RuntimeError, OSError) as error:
        raise DeviceError(
            f"cannot reach an RPC tracker at {host}:{port}: {error}. "
            f"Start one with `python -m tvm.exec.rpc_tracker --port {port}`"
        ) from error


def _wait_for_free_device(tracker: tvm.rpc.TrackerSession, key: str, name: str) -> None:
    deadline = time.monotonic() + _FREE_DEVICE_SECONDS
    while True:
        queues = tracker.summary()["queue_info"]
        if key not in queues:
            raise DeviceError(f"{name} has no device {key!r}; it has {sorted(queues) or 'none'}")
        if queues[key]["free"] > queues[key]["pending"]:
            return
        if time.monotonic() > deadline:
            raise DeviceError(f"{name}: no device {key!r} became free within {_FREE_DEVICE_SECONDS:.0f} s")
        time.sleep(0.1)
