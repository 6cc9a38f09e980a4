"""``mllm-tvm profile``: measure a device into a device profile, or the compiler's kernels on it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mllm_tvm.cli import kernels

HELP = "measure a device, or the kernels on it"
_DEVICE_HELP = "measure a device's kernels into a device profile for simulate and run --profile"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parts = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    _add_device_arguments(parts.add_parser("device", help=_DEVICE_HELP, description=_DEVICE_HELP))
    kernels.add_arguments(parts.add_parser("kernels", help=kernels.HELP, description=kernels.HELP))


def _add_device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--device", default="qemu", metavar="DEVICE", help="qemu (default), host or tracker://host:port/key"
    )
    parser.add_argument(
        "--base",
        default="qemu-hvx",
        metavar="NAME|FILE",
        help="profile whose figures are kept where kernels cannot tell, and whose clock turns packets into "
        "seconds (qemu-hvx)",
    )
    parser.add_argument("--name", default=None, metavar="NAME", help="name of the new profile (the device)")
    parser.add_argument("--to", default=None, metavar="FILE", help="write the profile here, as TOML")


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    return kernels.execute(args) if args.what == "kernels" else _execute_device(args)


def _execute_device(args: argparse.Namespace) -> int:
    from mllm_tvm.report.write import write_text
    from mllm_tvm.simulate.measure import measure_device, measured_profile
    from mllm_tvm.simulate.profile import load_profile
    from mllm_tvm.simulate.profile_text import profile_text

    base = load_profile(args.base)
    found = measure_device(args.device, base.npu.clock_hz)
    profile = measured_profile(base, found, args.name or args.device)
    text = profile_text(profile, base)
    if args.to is not None:
        write_text(Path(args.to), text)
    if args.json:
        print(json.dumps({**asdict(profile), "measured_by": found.counted}))
    elif args.to is not None:
        print(f"{args.to}: {profile.npu.int8_macs_per_s / 1e9:.1f} GMAC/s, by {found.counted}")
    else:
        print(text, end="")
    return 0
