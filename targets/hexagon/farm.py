"""Simulated Hexagons behind a TVM RPC tracker: one TVM RPC server a device, kept alive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Self

from tvm.rpc.base import random_key
from tvm.rpc.tracker import TrackerServerHandler

from targets.errors import DeviceError
from targets.hexagon.toolchain import find_qemu
from targets.hexagon.tracker import Tracker

DEFAULT_KEY = "hexagon-qemu"
_START_SECONDS = 60.0
_MOST_FAILURES = 5
_LOG_TAIL = 1000


class Farm:
    """``devices`` processes that serve simulated Hexagons as ``key`` of ``tracker``, until ``close``.

    Each is TVM's own RPC server: a client sends it a Hexagon executable to run. It listens on the address
    of this host that reaches the tracker, and trusts its clients, as all TVM RPC servers do. Raises
    DeviceError when the tracker cannot be reached or a device does not register, ToolchainError without an
    emulator.
    """

    def __init__(self, tracker: Tracker, devices: int, key: str = DEFAULT_KEY) -> None:
        if devices < 1 or not key or key != "".join(key.split()) or ":" in key:
            raise DeviceError(
                f"cannot serve {devices} devices as {key!r}: expected at least one device, and a key "
                "without spaces and colons"
            )
        find_qemu()
        with tracker.connect():
            pass
        self._tracker = tracker
        self._key = key
        self._devices: list[_ServedDevice] = []
        try:
            self._devices = [_ServedDevice(tracker, key) for _ in range(devices)]
            self._wait_until_registered()
        except BaseException:
            self.close()
            raise

    @property
    def ports(self) -> list[int]:
        """The port of each device."""
        return [device.port for device in self._devices]

    @property
    def pids(self) -> list[int]:
        """The process id of each device's server."""
        return [device.pid for device in self._devices]

    def supervise(self) -> int:
        """Start each device whose server ended anew, and return how many did.

        Raises DeviceError with what a server printed when it keeps ending.
        """
        ended = [i for i, device in enumerate(self._devices) if not device.runs()]
        for i in ended:
            self._devices[i] = self._devices[i].successor()
        return len(ended)

    def close(self) -> None:
        """End all devices and what they run."""
        for device in self._devices:
            device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_until_registered(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        with self._tracker.connect() as client:
            while missing := set(self.ports) - client.ports(self._key):
                self.supervise()
                if time.monotonic() > deadline:
                    raise DeviceError(
                        f"the devices at ports {sorted(missing)} did not register with {self._tracker} "
                        f"within {_START_SECONDS:.0f} s"
                    )
                time.sleep(0.05)


class _ServedDevice:
    """One process of ``targets.hexagon.farm_device``."""

    def __init__(self, tracker: Tracker, key: str, failures: int = 0) -> None:
        self._tracker, self._key, self._failures = tracker, key, failures
        self._begin = time.monotonic()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the process
        command = [sys.executable, "-m", "targets.hexagon.farm_device", tracker.host, str(tracker.port), key]
        # A session of its own: Ctrl-C reaches the farm only, and closing ends everything the device runs.
        self._process = subprocess.Popen(
            [*command, tracker.local_address()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self.port = self._read_port()

    @property
    def pid(self) -> int:
        return self._process.pid

    def runs(self) -> bool:
        return self._process.poll() is None

    def successor(self) -> _ServedDevice:
        """A new process in place of this one, which ended."""
        early = time.monotonic() - self._begin < _START_SECONDS
        failures = self._failures + 1 if early else 1
        if failures > _MOST_FAILURES:
            raise DeviceError(f"a device of the farm ended {failures} times: {self._output() or 'no output'}")
        self.close()
        return _ServedDevice(self._tracker, self._key, failures)

    def close(self) -> None:
        if self._process.stdout is None or self._process.stdin is None or self._process.stdin.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._process.stdin.close()
        self._log.close()

    def _read_port(self) -> int:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _START_SECONDS)
        line = self._process.stdout.readline().strip() if ready else b""
        if not line.isdigit():
            output = self._output()
            self.close()
            raise DeviceError(f"a device of the farm did not start: {output or 'no output'}")
        return int(line)

    def _output(self) -> str:
        text = os.pread(self._log.fileno(), 1 << 20, 0)
        return text.decode(errors="replace").strip()[-_LOG_TAIL:]


def serve_tracker(host: str, port: int) -> None:
    """Run TVM's RPC tracker at ``host:port`` in this thread, until it is interrupted.

    Raises DeviceError when the address is taken or not of this host.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            raise DeviceError(
                f"cannot serve a tracker at {host}:{port}: {error}; choose another port"
            ) from error
        listener.listen()
        asyncio.set_event_loop(asyncio.new_event_loop())
        TrackerServerHandler(listener, random_key("tracker")).run()
