"""A device process on this machine: started, watched and reaped; TVM's pipes lead to it."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Sequence

import tvm.rpc
import tvm_ffi

from targets.errors import DeviceError
from targets.hexagon.transfer import create_shared_file

# TVM forks and executes; were the program not executable, the fork would go on as a second Python. A shell
# cannot fail like that. It also reports its process id, and keeps what the device prints, in the log ($0).
# Ctrl-C is for the client, which closes its devices.
_LAUNCH = 'trap "" INT; exec 2>>"$0"; echo $$ >&2; ulimit -c 0; exec "$@"'
_EXIT_SECONDS = 2.0
_LOG_TAIL = 1000


class DeviceProcess:
    """Runs ``command``, which ends in a device server, and connects to it.

    ``rpc`` is the session, ``pid`` the process id, ``memory_fd`` the memory file that holds the device's
    large tensors. Raises DeviceError with the end of what the process printed when it does not answer. Call
    ``close`` when done.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the process
        # Not close-on-exec: the device inherits it.
        self.memory_fd = create_shared_file()
        self.pid: int | None = None
        try:
            self.rpc = tvm.rpc.RPCSession(_start(self._log.fileno(), [*command, str(self.memory_fd)]))
            self.pid = self._read_pid()
        except RuntimeError as error:
            self.pid = self._read_pid()
            cause = self.death() or error
            self._release()
            raise DeviceError(f"device process {' '.join(command)} did not answer: {cause}") from error

    def death(self) -> str | None:
        """How the process ended, with the end of what it printed; None when it still runs after 2 s."""
        deadline = time.monotonic() + _EXIT_SECONDS
        while (status := self._exit_status()) is None:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.002)
        output = self._output()
        return f"process {self.pid} {status}" + (f" after printing: {output}" if output else "")

    def close(self) -> None:
        """End the process and wait for it; nothing of it is left, neither a zombie nor a file."""
        self.rpc._sess["CloseRPCConnection"]()
        self._release()

    def _read_pid(self) -> int | None:
        first_line = os.pread(self._log.fileno(), 32, 0).partition(b"\n")[0]
        return int(first_line) if first_line.isdigit() else None

    def _exit_status(self) -> str | None:
        if self.pid is None:
            return "was not started"
        try:
            # WNOWAIT: the id stays taken until TVM, which kills it on closing, is done with it.
            result = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return "has ended"
        if result is None:
            return None
        if result.si_code == os.CLD_EXITED:
            return f"exited with code {result.si_status}"
        return f"was killed by {signal.Signals(result.si_status).name}"

    def _output(self) -> str:
        text = os.pread(self._log.fileno(), 1 << 20, 0).partition(b"\n")[2]
        return text.decode(errors="replace").strip()[-_LOG_TAIL:]

    def _release(self) -> None:
        if self.pid is not None and self.death() is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self._log.close()
        os.close(self.memory_fd)


def _start(log_fd: int, command: Sequence[str]) -> tvm.runtime.Module:
    create = tvm_ffi.get_global_func("rpc.CreatePipeClient")
    return create("/bin/sh", "-c", _LAUNCH, f"/proc/{os.getpid()}/fd/{log_fd}", *command)
