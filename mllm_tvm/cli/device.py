"""``mllm-tvm device``: a farm of simulated Hexagons behind TVM's RPC tracker."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping

HELP = "serve simulated Hexagons behind an RPC tracker, or list what one has"
_DEFAULT_PORT = 9190
_SUPERVISE_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    serve = actions.add_parser("serve", help="put simulated Hexagons of this machine behind a tracker")
    serve.add_argument("--tracker", required=True, metavar="HOST:PORT", help="where the tracker listens")
    serve.add_argument("--devices", type=int, default=1, metavar="N", help="how many devices (1)")
    serve.add_argument("--key", default="hexagon-qemu", help="what clients ask for (hexagon-qemu)")
    tracker = actions.add_parser("tracker", help="run TVM's RPC tracker")
    tracker.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    tracker.add_argument(
        "--port", type=int, default=_DEFAULT_PORT, metavar="PORT", help=f"port to listen on ({_DEFAULT_PORT})"
    )
    devices = actions.add_parser("list", help="devices of a tracker, by key")
    devices.add_argument("--tracker", required=True, metavar="HOST:PORT", help="where the tracker listens")
    for action in (serve, tracker, devices):
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def execute(args: argparse.Namespace) -> int:
    """Runs the command; the two servers end when they are interrupted or terminated."""
    if args.action != "list":
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    return {"serve": _serve, "tracker": _run_tracker, "list": _list}[args.action](args)


def _serve(args: argparse.Namespace) -> int:
    from targets.hexagon.farm import Farm
    from targets.hexagon.tracker import Tracker

    tracker = Tracker.parse(args.tracker)
    with Farm(tracker, args.devices, args.key) as farm:
        report = {"tracker": args.tracker, "key": args.key, "ports": farm.ports}
        device = f"tracker://{args.tracker}/{args.key}"
        _print(args, report, f"{args.devices} device(s) ready as {device}; end with Ctrl-C")
        while True:
            time.sleep(_SUPERVISE_SECONDS)
            if ended := farm.supervise():
                print(f"{ended} device(s) ended and were started again", file=sys.stderr, flush=True)


def _run_tracker(args: argparse.Namespace) -> int:
    from targets.hexagon.farm import serve_tracker

    address = f"{args.host}:{args.port}"
    _print(args, {"tracker": address}, f"tracker at {address}; end with Ctrl-C")
    serve_tracker(args.host, args.port)
    return 0


def _list(args: argparse.Namespace) -> int:
    from targets.hexagon.tracker import Tracker

    with Tracker.parse(args.tracker).connect() as client:
        devices, free = client.devices(), client.free()
    report = {
        key: {"devices": [f"{host}:{port}" for host, port in sorted(found)], "free": free.get(key, 0)}
        for key, found in sorted(devices.items())
    }
    lines = [f"{key}: {len(r['devices'])} device(s), {r['free']} free" for key, r in report.items()]  # type: ignore[arg-type]
    _print(args, report, "\n".join(lines) or "no devices")
    return 0


def _print(args: argparse.Namespace, report: Mapping[str, object], text: str) -> None:
    print(json.dumps(report) if args.json else text, flush=True)
