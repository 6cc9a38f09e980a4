"""Ends the wait for a device that does not answer."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable

_PERIOD_SECONDS = 0.5


class Watchdog:
    """Calls ``expire``, once, when a request takes more than ``seconds``; on a thread of its own."""

    def __init__(self, seconds: float, expire: Callable[[], None]) -> None:
        self._seconds, self._expire = seconds, expire
        self._begin: float | None = None
        self._closed = threading.Event()
        self.expired = False
        self._thread = threading.Thread(target=self._watch, name="mllm-watchdog", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """A request starts."""
        self._begin = time.monotonic()

    def end(self) -> None:
        """The request got its answer."""
        self._begin = None

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(min(_PERIOD_SECONDS, self._seconds)):
            begin = self._begin
            if begin is not None and time.monotonic() - begin > self._seconds:
                self.expired = True
                self._expire()
                return


class ConnectionBreaker:
    """Breaks the TCP connection of this process to ``address`` that was opened last.

    TVM's client keeps its socket to itself, and waits in ``recv`` for as long as it takes.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._connection = _find_connection(address)

    def __call__(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _find_connection(address: tuple[str, int]) -> socket.socket | None:
    for fd in sorted(map(int, os.listdir("/proc/self/fd")), reverse=True):
        # Descriptors may be closed meanwhile by another thread, and sockets have no peer, or a path for one.
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                continue
            candidate = socket.socket(fileno=os.dup(fd))
            if _peer(candidate) == address:
                return candidate
            candidate.close()
    return None


def _peer(connection: socket.socket) -> tuple[str, int] | None:
    try:
        name = connection.getpeername()
    except OSError:
        return None
    return (name[0], name[1]) if isinstance(name, tuple) else None
