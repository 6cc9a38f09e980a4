"""Device sessions, on the emulator and on this CPU: tensors, calls, refusals, death of the device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tvm
import tvm.rpc

from targets.errors import DeviceError, ToolchainError
from targets.hexagon.session import Counters, DeviceSession, SessionConfig, open_session
from targets.hexagon.tracker import self_contained_launcher
from tests.targets.hexagon.kernels import PARALLEL_SIZE, SLOW_SIZE, build_server, needs_qemu

DEATH_SECONDS = 3.0
"""An upper limit with room for a busy machine; measured deaths are reported within some 20 ms."""

local_devices = pytest.mark.parametrize("device", [pytest.param("qemu", marks=needs_qemu), "host"])


@pytest.fixture(scope="module")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds the test server for a device, once."""
    folder = tmp_path_factory.mktemp("servers")
    servers: dict[str, Path] = {}

    def server(device: str) -> Path:
        kind = "host" if device == "host" else "qemu"
        if kind not in servers:
            servers[kind] = build_server(kind, folder)
        return servers[kind]

    return server


@pytest.fixture
def session(device: str, server_of: Callable[[str], Path]) -> Iterator[DeviceSession]:
    with open_session(device, server_of(device)) as opened:
        yield opened


def call_add(session: DeviceSession) -> tuple[Counters, np.ndarray]:
    a = session.upload(np.arange(64, dtype=np.int32))
    b = session.upload(np.full(64, 1000, dtype=np.int32))
    c = session.empty((64,), "int32")
    return session.call("add", a, b, c), session.download(c)


@local_devices
def test_kernel_call(session: DeviceSession, device: str) -> None:
    assert session.device == device
    assert session.kernels() == ["add", "crash", "hang", "parallel_add", "slow"]
    counters, result = call_add(session)
    np.testing.assert_array_equal(result, np.arange(1000, 1064))
    assert call_add(session)[0] == counters
    if device == "qemu":
        # 64 additions take at least two HVX vectors or 64 scalars, and the call checks its arguments.
        assert 64 < counters.packets < 10_000
        assert counters.packets < counters.instructions
        assert (counters.total_packets, counters.contexts) == (counters.packets, 1)
    else:
        assert counters == (0, 0, 0, 0, 1)


@local_devices
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((0,), "int8"),
        ((3, 0), "float32"),
        ((1,), "uint8"),
        ((), "int64"),
        ((7, 13, 3), "float16"),
        ((33,), "bool"),
        ((1 << 22,), "int8"),
        (((1 << 23) + 17,), "uint8"),
    ],
)
def test_round_trip(session: DeviceSession, shape: tuple[int, ...], dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
    tensor = session.upload(array)
    result = session.download(tensor)
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


@local_devices
def test_rows(session: DeviceSession) -> None:
    tensor = session.upload(np.zeros((4, 5), dtype=np.int32))
    session.write(tensor, np.arange(20, dtype=np.int32).reshape(5, 4).T[:2])
    out = np.full((3, 5), -1, dtype=np.int32)
    assert session.download(tensor, out=out) is out
    np.testing.assert_array_equal(out, [[0, 4, 8, 12, 16], [1, 5, 9, 13, 17], [0, 0, 0, 0, 0]])


@local_devices
def test_contexts(session: DeviceSession, device: str) -> None:
    array = np.arange(PARALLEL_SIZE, dtype=np.int32)
    a, c = session.upload(array), session.empty(array.shape, "int32")
    one, four = {}, {}
    for count, counters in ((1, one), (4, four)):
        session.use_contexts(count)
        counters["add"] = session.call("parallel_add", a, a, c)
        np.testing.assert_array_equal(session.download(c), 2 * array)
        session.write(c, array)
        assert session.call("parallel_add", a, a, c) == counters["add"]
    if device == "qemu":
        assert one["add"].packets > 3.5 * four["add"].packets
        assert one["add"].total_packets == one["add"].packets
        assert four["add"].total_packets == pytest.approx(one["add"].packets, rel=0.1)
        assert four["add"].contexts == 4
    for count in (0, 5, -1):
        with pytest.raises(DeviceError, match="takes a number from 1 to 4"):
            session.use_contexts(count)


@local_devices
def test_arrays_that_do_not_fit_are_refused(session: DeviceSession) -> None:
    tensor = session.empty((4, 5), "int32")
    for array in (np.zeros((5, 5), "int32"), np.zeros((4, 4), "int32"), np.zeros((4, 5), "int64")):
        with pytest.raises(DeviceError, match=r"does not fit a device tensor of shape \(4, 5\) int32"):
            session.write(tensor, array)
    with pytest.raises(DeviceError, match="C-contiguous"):
        session.download(tensor, out=np.zeros((5, 4), "int32").T)
    with pytest.raises(DeviceError, match="cannot put dtype complex64"):
        session.upload(np.zeros(3, "complex64"))
    call_add(session)


@local_devices
def test_refused_calls_leave_the_session_usable(session: DeviceSession) -> None:
    a, short = session.empty((64,), "int32"), session.empty((63,), "int32")
    with pytest.raises(
        DeviceError, match=r"no kernel 'sub'; it has \['add', 'crash', 'hang', 'parallel_add', 'slow'\]"
    ):
        session.call("sub", a, a, a)
    with pytest.raises(DeviceError, match=r"has no kernel 'mllm\.kernels'"):
        session.call("mllm.kernels")
    with pytest.raises(DeviceError, match="Expected 3 arguments"):
        session.call("add", a, a)
    with pytest.raises(DeviceError, match=r"(?s)shape.*expected"):
        session.call("add", a, a, short)
    with pytest.raises(DeviceError, match=r"(?s)dtype.*expected int32"):
        session.call("add", a, a, session.empty((64,), "int8"))
    with pytest.raises(DeviceError, match=r"argument 1 \(ndarray\) is not a tensor of this session"):
        session.call("add", a, np.zeros(64, "int32"), a)  # type: ignore[arg-type]
    np.testing.assert_array_equal(call_add(session)[1], np.arange(1000, 1064))


@local_devices
def test_crash_of_a_kernel_is_explained(session: DeviceSession) -> None:
    pid = session.pid
    with pytest.raises(DeviceError, match=rf"was lost .* kernel crash: process {pid} was killed by SIG"):
        session.call("crash", session.empty((1,), "int32"))
    assert session.pid == pid


@local_devices
def test_out_of_memory_says_by_how_much(session: DeviceSession) -> None:
    with pytest.raises(
        DeviceError, match=r"out of memory: 1099511627776 bytes asked for.*short by \d+ bytes"
    ):
        session.empty((1 << 40,), "int8")
    with pytest.raises(DeviceError, match="overflows"):
        session.empty((1 << 40, 1 << 40), "int8")
    call_add(session)


@local_devices
def test_dropped_tensors_are_freed(session: DeviceSession) -> None:
    # More than a 32-bit device has, half a gibibyte at a time.
    for _ in range(10):
        session.empty((1 << 29,), "int8")
    call_add(session)


@needs_qemu
def test_tensors_of_another_session_are_refused(server_of: Callable[[str], Path]) -> None:
    with open_session("qemu", server_of("qemu")) as one, open_session("host", server_of("host")) as other:
        with pytest.raises(DeviceError, match="argument 0"):
            one.call("add", other.empty((64,), "int32"))
        call_add(one)


@local_devices
def test_plain_tvm_client(device: str, server_of: Callable[[str], Path]) -> None:
    """What TVM's own client does: binaries as bytes or as a path, the system library, copies by RPC."""
    server = server_of(device)
    rpc = tvm.rpc.PopenSession(self_contained_launcher(server) if device == "qemu" else str(server))
    memory = rpc.cpu(0)
    array = np.random.default_rng(0).integers(0, 100, 100_000).astype("int32")
    first = tvm.runtime.empty(array.shape, "int32", memory).copyfrom(array)
    second = tvm.runtime.empty(array.shape, "int32", memory)
    first.copyto(second)
    memory.sync()
    np.testing.assert_array_equal(second.numpy(), array)
    tensors = [tvm.runtime.empty((64,), "int32", memory).copyfrom(array[:64]) for _ in range(3)]
    assert len(bytes(rpc.system_lib()["add"](*tensors))) == 5 * np.dtype("int64").itemsize
    np.testing.assert_array_equal(tensors[2].numpy(), 2 * array[:64])
    with pytest.raises(AttributeError):
        rpc.system_lib()["sub"]
    assert memory.exist
    rpc._sess["CloseRPCConnection"]()


@local_devices
def test_time_evaluator(session: DeviceSession) -> None:
    """Each run of ``add`` adds ``ones`` to ``total``: what was timed really ran, as often as asked."""
    library, memory = session._rpc.system_lib(), session._rpc.cpu(0)
    ones, total = session.upload(np.ones(64, dtype="int32")), session.upload(np.zeros(64, dtype="int32"))
    timed = library.time_evaluator("add", memory, number=3, repeat=4)(ones, total, total)
    assert len(timed.results) == 4
    assert all(0 < seconds < 1 for seconds in timed.results)
    np.testing.assert_array_equal(session.download(total), 1 + 3 * 4)
    long = library.time_evaluator("add", memory, number=1, min_repeat_ms=5, cooldown_interval_ms=1)
    runs_before = session.download(total)[0]
    (seconds,) = long(ones, total, total).results
    # The last measurement alone took 5 ms.
    assert 5e-3 / seconds < session.download(total)[0] - runs_before
    assert session._rpc._sess.time_evaluator("add", memory, number=1)(ones, total, total).mean > 0


@local_devices
def test_refused_time_evaluators_leave_the_session_usable(session: DeviceSession) -> None:
    library, memory = session._rpc.system_lib(), session._rpc.cpu(0)
    for wrong, message in (
        ({"number": 0}, "number is 0, expected 1 to"),
        ({"repeat": -1}, "repeat is -1"),
        ({"repeats_to_cooldown": 0}, "repeats_to_cooldown is 0"),
        ({"cache_flush_bytes": 1 << 20}, "expected cache_flush_bytes=0"),
        ({"f_preproc": "cache_flush_cpu_non_first_arg"}, "expected f_preproc"),
    ):
        with pytest.raises(tvm.error.RPCError, match=message):
            library.time_evaluator("add", memory, **wrong)
    with pytest.raises(tvm.error.RPCError, match='there is no kernel "sub" on this device'):
        library.time_evaluator("sub", memory)
    with pytest.raises(tvm.error.RPCError, match=r"expected the session's cpu\(0\)"):
        library.time_evaluator("add", session._rpc.hexagon(0))
    with pytest.raises(tvm.error.RPCError, match="Expected 3 arguments"):
        library.time_evaluator("add", memory)()
    with pytest.raises(tvm.error.RPCError, match=r"loads no modules: .*system_lib\(\)"):
        session._rpc.load_module("kernels.tar")
    for _ in range(300):
        library.time_evaluator("add", memory)  # dropped at once: the device frees it
    call_add(session)


@local_devices
@pytest.mark.parametrize("action", ["idle", "call", "upload"])
def test_killed_device_is_reported_at_once(
    device: str,
    action: str,
    server_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    descriptors = len(os.listdir("/proc/self/fd"))
    session = open_session(device, server_of(device))
    # A second device must not keep the pipes of the first one open.
    other = open_session("host", server_of("host"))
    pid = session.pid
    assert pid is not None
    work = busy_work(session, action)
    killed = kill_later(pid, 0.0 if action == "idle" else 0.3)
    with pytest.raises(DeviceError, match=rf"'{device}' was lost .*process {pid} was killed by SIGKILL"):
        work()
    assert time.monotonic() - killed[0] < DEATH_SECONDS
    with pytest.raises(DeviceError, match="the session is closed"):
        call_add(session)
    assert not psutil.pid_exists(pid)
    call_add(other)
    other.close()
    del work
    session.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert list(tmp_path.iterdir()) == []


@local_devices
def test_hung_kernel_is_given_up(device: str, server_of: Callable[[str], Path]) -> None:
    session = open_session(device, server_of(device), SessionConfig(call_seconds=1))
    tensor = session.empty((1,), "int32")
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"was lost .* within 1 s .*ran for longer than its limit"):
        session.call("hang", tensor)
    assert time.monotonic() - begin < 1 + DEATH_SECONDS


def test_stopped_device_is_given_up(
    server_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targets.hexagon.session._GRACE_SECONDS", 0.5)
    session = open_session("host", server_of("host"), SessionConfig(call_seconds=1))
    pid = session.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DeviceError, match="did not answer within 1 s"):
        call_add(session)
    assert not psutil.pid_exists(pid)


@local_devices
def test_interrupt_ends_the_session(session: DeviceSession) -> None:
    pid, tensor = session.pid, session.empty((1,), "int32")
    assert pid is not None
    signal.siginterrupt(signal.SIGINT, False)  # as TVM's compiler leaves it
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        session.call("hang", tensor)
    assert not psutil.pid_exists(pid)
    with pytest.raises(DeviceError, match="the session is closed"):
        session.kernels() and session.call("hang", tensor)


@local_devices
def test_freed_memory_goes_back_to_the_machine(session: DeviceSession) -> None:
    assert session._process is not None
    tensor = session.upload(np.ones(8 << 20, dtype=np.int8))
    assert os.fstat(session._process.memory_fd).st_blocks * 512 >= 8 << 20
    del tensor
    call_add(session)
    assert os.fstat(session._process.memory_fd).st_blocks * 512 < 1 << 20


def test_server_of_another_version(server_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    children = psutil.Process().children()
    find = tvm.rpc.RPCSession.get_function
    # As if the server lacked it.
    other = {"mllm.limit_calls": "mllm.no_such_function"}
    monkeypatch.setattr(
        tvm.rpc.RPCSession, "get_function", lambda rpc, name: find(rpc, other.get(name, name))
    )
    with pytest.raises(DeviceError, match=r"has no 'mllm\.limit_calls': .* compile the model again"):
        open_session("host", server_of("host"))
    assert psutil.Process().children() == children


@pytest.mark.parametrize("wrong", [{"call_seconds": 0}, {"free_seconds": 0.0}])
def test_bad_config(wrong: dict[str, float]) -> None:
    with pytest.raises(DeviceError, match="expected at least one second"):
        SessionConfig(**wrong)  # type: ignore[arg-type]


def busy_work(session: DeviceSession, action: str) -> Callable[[], object]:
    """Something that keeps the device busy for longer than it has to live."""
    if action == "upload":
        array = np.ones(1 << 24, dtype=np.int8)
        return lambda: [session.upload(array) for _ in range(1000)]
    if action == "call":
        tensors = [session.empty((SLOW_SIZE, SLOW_SIZE), "int32") for _ in range(3)]
        return lambda: [session.call("slow", *tensors) for _ in range(100)]
    return lambda: call_add(session)


def kill_later(pid: int, seconds: float) -> list[float]:
    """Kills a process after a while; the list gets the time of it."""
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)

    if seconds == 0.0:
        kill()
    else:
        threading.Timer(seconds, kill).start()
    return killed


@local_devices
def test_close_leaves_nothing(
    device: str, server_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_of(device)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    descriptors = len(os.listdir("/proc/self/fd"))
    session = open_session(device, server)
    pid = session.pid
    tensor = session.empty((4,), "int8")
    session.close()
    session.close()
    assert pid is not None
    assert not psutil.pid_exists(pid)
    with pytest.raises(DeviceError, match="the session is closed"):
        session.download(tensor)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert list(tmp_path.iterdir()) == []


@needs_qemu
def test_devices_end_with_their_client(server_of: Callable[[str], Path]) -> None:
    """Even when it is killed, and later devices have inherited the pipes of earlier ones."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from targets.hexagon.session import open_session\n"
        "devices = zip(sys.argv[1::2], sys.argv[2::2])\n"
        "sessions = [open_session(device, Path(server)) for device, server in devices]\n"
        "print(*(session.pid for session in sessions), flush=True)\n"
        "time.sleep(60)\n"
    )
    host, qemu = str(server_of("host")), str(server_of("qemu"))
    command = [sys.executable, "-c", program, "host", host, "qemu", qemu, "host", host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        pids = [int(pid) for pid in client.stdout.readline().split()]
        client.kill()
    assert len(pids) == 3
    deadline = time.monotonic() + DEATH_SECONDS
    while alive := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline, f"devices {alive} outlived their client"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("device", ["npu", "", "QEMU", "tracker://", "tracker://host/key", "tracker://h:1/"])
def test_unknown_device(device: str, server_of: Callable[[str], Path]) -> None:
    with pytest.raises(DeviceError, match="expected 'qemu', 'host' or 'tracker://host:port/key'"):
        open_session(device, server_of("host"))


def test_missing_server(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="not an executable file: build it with link_server"):
        open_session("host", tmp_path / "nothing")
    with pytest.raises(DeviceError, match="not an executable file"):
        open_session("host", tmp_path)


def test_missing_emulator(
    server_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_of("host")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="apt-get install qemu-user"):
        open_session("qemu", server)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"#!/bin/sh\necho broken firmware >&2; exit 7\n",
            "exited with code 7 after printing: broken firmware",
        ),
        (b"#!/bin/sh\nkill -SEGV $$\n", "was killed by SIGSEGV"),
        (b"\x7fELF of some other machine", "exited with code 126"),
    ],
)
def test_server_that_does_not_start(tmp_path: Path, content: bytes, reason: str) -> None:
    server = tmp_path / "server"
    server.write_bytes(content)
    server.chmod(0o700)
    children = psutil.Process().children()
    with pytest.raises(DeviceError, match=reason):
        open_session("host", server)
    assert psutil.Process().children() == children
