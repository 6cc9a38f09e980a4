"""The command line: ``mllm-tvm COMMAND``. Each command is one file of this package."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from mllm_tvm.cli import calibrate, device, doctor, evaluate, inspect, profile, run, simulate, tune
from mllm_tvm.cli import compile as compile_command
from mllm_tvm.errors import MllmTvmError

_COMMANDS = {
    "calibrate": calibrate,
    "compile": compile_command,
    "run": run,
    "eval": evaluate,
    "inspect": inspect,
    "device": device,
    "doctor": doctor,
    "simulate": simulate,
    "profile": profile,
    "tune": tune,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code (0 success, 1 error, 2 usage, 130 interrupted)."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        return _COMMANDS[args.command].execute(args)
    except MllmTvmError as error:
        print(f"mllm-tvm: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader is gone (`mllm-tvm run | head`); keep the interpreter from flushing into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mllm-tvm", description="Compile LLMs for Qualcomm Hexagon NPUs and run them."
    )
    parser.add_argument("--version", action="version", version=f"mllm-tvm {version('mllm-tvm')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in _COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser
