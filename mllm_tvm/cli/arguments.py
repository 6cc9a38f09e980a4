"""What several commands share: arguments, and how a compilation reports."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllm_tvm.quantization.schemes import SchemeSettings

MODEL_HELP = "Hugging Face model directory, ONNX file or GGUF file"


def lengths(text: str) -> tuple[int, ...]:
    """``16,64,256`` as a tuple of ints, for argparse."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers with commas, like 16,64,256; got {text!r}"
        ) from None


def add_compile_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings of a compilation: target, chunk lengths, calibration text."""
    parser.add_argument("--target", default=None, metavar="TAG", help="Hexagon target (qcom/hexagon-v68)")
    parser.add_argument(
        "--chunk-lengths", type=lengths, default=None, metavar="N,N", help="prompt chunk lengths (16,64,256)"
    )
    parser.add_argument(
        "--calibration",
        default=None,
        metavar="FILE",
        help="text to calibrate on; <|endoftext|> separates texts (default: stories the project writes)",
    )


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Where and how a model runs."""
    parser.add_argument(
        "--device", default="qemu", metavar="DEVICE", help="qemu (default), host or tracker://host:port/key"
    )
    parser.add_argument(
        "--policy",
        default=None,
        metavar="NAME",
        help="scheduling rule: ours, paper, in-order, sequential (default: the artifact's, ours if no plan "
        "says otherwise)",
    )


def add_no_fuse_mlp(parser: argparse.ArgumentParser) -> None:
    """Keeps gated MLPs apart."""
    parser.add_argument(
        "--no-fuse-mlp",
        action="store_true",
        help="compute the activations of gated MLPs on the CPU, not inside NPU functions",
    )


def add_budgets(parser: argparse.ArgumentParser) -> None:
    """The budgets of the search for input scales."""
    parser.add_argument(
        "--outlier-budget",
        type=float,
        default=None,
        metavar="SHARE",
        help="outlier channels per token (0.0045)",
    )
    parser.add_argument(
        "--hot-share",
        type=float,
        default=None,
        metavar="SHARE",
        help="of the model's memory, for float rows of hot channels (0.02)",
    )


def scheme_settings(args: argparse.Namespace, percentile: float | None = None) -> SchemeSettings:
    """The budgets that were given, else the defaults; raises CalibrationError for one out of range."""
    from mllm_tvm.quantization.schemes import SchemeSettings

    settings = SchemeSettings(percentile=percentile)
    if args.outlier_budget is not None:
        settings = replace(settings, outlier_budget=args.outlier_budget)
    if args.hot_share is not None:
        settings = replace(settings, hot_share=args.hot_share)
    settings.check()
    return settings


def show_stage(name: str, seconds: float) -> None:
    """Says on the error stream how long a stage of a compilation took."""
    print(f"{name}: {seconds:.1f} s", file=sys.stderr)
