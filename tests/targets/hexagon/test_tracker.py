"""Devices behind TVM's RPC tracker."""

from __future__ import annotations

import os
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType

import numpy as np
import psutil
import pytest
import tvm.rpc.tracker
from tvm.rpc import base

from targets.errors import DeviceError
from targets.hexagon.farm import Farm
from targets.hexagon.session import DeviceSession, SessionConfig, open_session
from targets.hexagon.tracker import Tracker, self_contained_launcher
from targets.hexagon.transfer import DataConnection, SharedMemory
from tests.targets.hexagon.kernels import build_server, needs_qemu

pytestmark = needs_qemu

KEY = "hexagon-qemu"
DEATH_SECONDS = 3.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_server("qemu", tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracker with one device on this machine; its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("farm")))
        patch.setattr(tempfile, "tempdir", None)
        port = free_port()
        tracker = tvm.rpc.tracker.Tracker("127.0.0.1", port=port, port_end=port + 100, silent=True)
        address = Tracker("127.0.0.1", tracker.port)
        farm = Farm(address, 1, KEY)
    with farm:
        yield f"{address.host}:{address.port}"
    tracker.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def emulators() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if _is_emulator(child)]


def _is_emulator(process: psutil.Process) -> bool:
    try:
        # TVM's own client leaves zombies behind, which other tests use.
        return process.name() == "qemu-hexagon" and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended since it was listed
        return False


def call_add(session: DeviceSession) -> tuple[int, np.ndarray]:
    a = session.upload(np.arange(64, dtype=np.int32))
    c = session.empty((64,), "int32")
    packets = session.call("add", a, a, c).packets
    return packets, session.download(c)


def test_session(tracker: str, server: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with open_session(f"tracker://{tracker}/{KEY}", server) as session:
        assert session.kernels() == ["add", "crash", "hang", "parallel_add", "slow"]
        assert session.pid is None
        packets, result = call_add(session)
        assert packets == call_add(session)[0] > 0
        np.testing.assert_array_equal(result, 2 * np.arange(64))
    assert wait_until(lambda: not emulators())
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_time_evaluator(tracker: str, server: Path) -> None:
    """With TVM's client alone."""
    host, port = tracker.split(":")
    client = tvm.rpc.connect_tracker(host, int(port))
    arguments = ["rpc.PopenSession", self_contained_launcher(server)]
    rpc = client.request(KEY, session_constructor_args=arguments)
    memory = rpc.cpu(0)
    ones = tvm.runtime.empty((64,), "int32", memory).copyfrom(np.ones(64, dtype="int32"))
    total = tvm.runtime.empty((64,), "int32", memory).copyfrom(np.zeros(64, dtype="int32"))
    timed = rpc.system_lib().time_evaluator("add", memory, number=2, repeat=3)(ones, total, total)
    assert len(timed.results) == 3
    assert min(timed.results) > 0
    np.testing.assert_array_equal(total.numpy(), 1 + 2 * 3)
    with pytest.raises(tvm.error.RPCError, match="number is 0"):
        rpc.system_lib().time_evaluator("add", memory, number=0)
    rpc._sess["CloseRPCConnection"]()
    client.close()


def test_packets_are_those_of_a_local_device(tracker: str, server: Path) -> None:
    with open_session(f"tracker://{tracker}/{KEY}", server) as far, open_session("qemu", server) as near:
        assert call_add(far)[0] == call_add(near)[0]


@pytest.mark.parametrize("way", ["shared memory", "connection", "rpc"])
def test_round_trip_and_rows(tracker: str, server: Path, way: str) -> None:
    array = np.random.default_rng(0).integers(-100, 100, (1000, 33)).astype("int8")
    config = SessionConfig(share_memory=way == "shared memory", data_connection=way == "connection")
    with open_session(f"tracker://{tracker}/{KEY}", server, config) as session:
        kind = {"shared memory": SharedMemory, "connection": DataConnection, "rpc": NoneType}[way]
        assert type(session._transfer) is kind
        tensor = session.upload(array)
        session.write(tensor, array[:0])
        session.write(tensor, array[::2])
        expected = np.concatenate([array[::2], array[500:]])
        np.testing.assert_array_equal(session.download(tensor), expected)
        out = np.empty((7, 33), dtype="int8")
        np.testing.assert_array_equal(session.download(tensor, out=out), expected[:7])
        assert session.download(session.upload(array[:0])).shape == (0, 33)


def test_refusals_leave_the_session_usable(tracker: str, server: Path) -> None:
    with open_session(f"tracker://{tracker}/{KEY}", server) as session:
        with pytest.raises(
            DeviceError, match=r"refused to run kernel add: kernel add: .*Expected 3 arguments"
        ):
            session.call("add")
        with pytest.raises(DeviceError, match="short by"):
            session.empty((1 << 40,), "int8")
        call_add(session)


def test_hung_kernel_is_given_up(tracker: str, server: Path) -> None:
    session = open_session(f"tracker://{tracker}/{KEY}", server, SessionConfig(call_seconds=1))
    tensor = session.empty((1,), "int32")
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"was lost .*did not answer within 1 s"):
        session.call("hang", tensor)
    assert time.monotonic() - begin < 1 + DEATH_SECONDS
    # The device is free again.
    test_session(tracker, server)


def test_stopped_device_is_given_up(tracker: str, server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targets.hexagon.session._GRACE_SECONDS", 0.5)
    session = open_session(f"tracker://{tracker}/{KEY}", server, SessionConfig(call_seconds=1))
    (emulator,) = emulators()
    emulator.suspend()
    with pytest.raises(DeviceError, match="did not answer within 1 s"):
        call_add(session)
    emulator.kill()
    test_session(tracker, server)


def test_no_device_is_free(tracker: str, server: Path) -> None:
    with (
        open_session(f"tracker://{tracker}/{KEY}", server),
        pytest.raises(DeviceError, match=r"became free within 1 s; end another session"),
    ):
        open_session(f"tracker://{tracker}/{KEY}", server, SessionConfig(free_seconds=1))
    # The request that was given up does not take the device.
    test_session(tracker, server)


@pytest.mark.parametrize("way", ["idle", "shared memory", "connection", "rpc"])
def test_killed_device_is_reported_at_once(tracker: str, server: Path, way: str) -> None:
    config = SessionConfig(share_memory=way == "shared memory", data_connection=way == "connection")
    action = "idle" if way == "idle" else "upload"
    with open_session(f"tracker://{tracker}/{KEY}", server, config) as session:
        (emulator,) = emulators()
        work = busy_work(session, action)
        killed: list[float] = []

        def kill() -> None:
            killed.append(time.monotonic())
            emulator.kill()

        kill() if action == "idle" else threading.Timer(0.3, kill).start()
        with pytest.raises(DeviceError, match="was lost"):
            work()
        assert time.monotonic() - killed[0] < DEATH_SECONDS
        with pytest.raises(DeviceError, match="the session is closed"):
            call_add(session)
    # The device is free again.
    test_session(tracker, server)


def test_client_that_disappears_in_a_packet_frees_its_device(tracker: str, server: Path) -> None:
    """TVM's server ends then: the device starts another, which serves whole sessions again."""
    with Tracker.parse(tracker).connect() as client:
        host, port, match_key = client.request(KEY, 30)
    with socket.create_connection((host, port)) as connection:
        key = f"client:{match_key}".encode()
        connection.sendall(struct.pack("<ii", base.RPC_MAGIC, len(key)) + key)
        assert struct.unpack("<i", base.recvall(connection, 4)) == (base.RPC_CODE_SUCCESS,)
        base.recvall(connection, struct.unpack("<i", base.recvall(connection, 4))[0])
        connection.sendall(struct.pack("<Q", 1000) + bytes(100))
    test_session(tracker, server)


def test_farm_restarts_a_device_whose_server_died(tracker: str, server: Path) -> None:
    with Farm(Tracker.parse(tracker), 1, "other") as farm:
        assert farm.supervise() == 0
        pid = farm.pids[0]
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: farm.supervise() == 1)
        assert farm.pids[0] != pid
        with open_session(f"tracker://{tracker}/other", server) as session:
            call_add(session)
        pid = farm.pids[0]
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(("devices", "key"), [(0, KEY), (1, ""), (1, "two words"), (1, "a:b")])
def test_farms_that_cannot_be(tracker: str, devices: int, key: str) -> None:
    with pytest.raises(DeviceError, match=rf"cannot serve {devices} devices as"):
        Farm(Tracker.parse(tracker), devices, key)


def busy_work(session: DeviceSession, action: str) -> Callable[[], object]:
    if action == "idle":
        return lambda: call_add(session)
    array = np.ones(1 << 22, dtype=np.int8)
    return lambda: [session.upload(array) for _ in range(1000)]


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_device_that_does_not_start(tracker: str, tmp_path: Path) -> None:
    broken = tmp_path / "server"
    broken.write_bytes(b"no ELF")
    broken.chmod(0o700)
    with pytest.raises(DeviceError, match="did not start server"):
        open_session(f"tracker://{tracker}/{KEY}", broken)


def test_unknown_key_and_tracker(tracker: str, server: Path) -> None:
    with pytest.raises(DeviceError, match=rf"has no device 'phone'; it has \['{KEY}'\]"):
        open_session(f"tracker://{tracker}/phone", server)
    with pytest.raises(DeviceError, match="cannot reach an RPC tracker"):
        open_session(f"tracker://127.0.0.1:{free_port()}/{KEY}", server)


def test_launcher_leaves_no_file(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = tmp_path / "launcher"
    launcher.write_bytes(self_contained_launcher(server))
    launcher.chmod(0o700)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    with open_session("host", launcher) as session:
        call_add(session)
        assert list(scratch.iterdir()) == []
