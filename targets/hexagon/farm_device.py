"""One device of a farm: ``python -m targets.hexagon.farm_device TRACKER_HOST TRACKER_PORT KEY ADDRESS``.

Prints the port it listens on, and ends with the process that holds the other end of its standard input.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from tvm.rpc.server import PopenRPCServerState

_FIRST_PORT = 9200
_LAST_PORT = 20000


def main(tracker_host: str, tracker_port: int, key: str, address: str) -> None:
    """Serve as ``key`` of the tracker for ever."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    home = os.getcwd()
    port, port_end = _FIRST_PORT, _LAST_PORT
    while True:
        server = PopenRPCServerState(
            address, port, port_end, tracker_addr=(tracker_host, tracker_port), key=key, silent=True
        )
        if port_end == _LAST_PORT:
            print(server.port, flush=True)
            port, port_end = server.port, server.port + 1
        # TVM's serving thread ends for good when a client disappears in the middle of a packet. It leaves
        # this process in the session's directory, which is gone: no later session could start from there.
        server.thread.join()
        server.sock.close()
        os.chdir(home)


def _end_with_parent() -> None:
    # Nobody writes to it: reading returns when the parent has closed it or is gone.
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
