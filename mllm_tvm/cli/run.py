"""``mllm-tvm run``: text from a prompt, on a device."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mllm_tvm.cli.arguments import MODEL_HELP, add_compile_arguments, add_engine_arguments, show_stage

if TYPE_CHECKING:
    from mllm_tvm.runtime.engine import Engine
    from mllm_tvm.runtime.shadow_memory import ShadowMemory

HELP = "generate text; with no arguments, the demo model on the simulated device"
DEFAULT_PROMPT = "Once upon a time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("artifact", nargs="?", default=None, metavar="ARTIFACT", help="a compiled artifact")
    parser.add_argument(
        "--model",
        default=None,
        metavar="MODEL",
        help=f"{MODEL_HELP} (compiled once, into the user's cache), or artifact",
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", default=DEFAULT_PROMPT, help=f"text to continue ({DEFAULT_PROMPT!r})")
    prompts.add_argument(
        "--prompt-file",
        default=None,
        metavar="FILE",
        help="read that text from a UTF-8 file, - for the input",
    )
    parser.add_argument("--max-tokens", type=int, default=200, metavar="N", help="tokens to generate (200)")
    add_engine_arguments(parser)
    add_compile_arguments(parser)
    parser.add_argument(
        "--profile",
        default=None,
        metavar="NAME|FILE",
        help="time on the clock of this device profile; results are still computed on --device",
    )
    parser.add_argument("--trace", default=None, metavar="FILE", help="write a Chrome trace of the prefill")
    parser.add_argument("--report", default=None, metavar="FILE", help="write an HTML report of the prefill")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="keep the K likeliest; 0 keeps all")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="keep this much probability")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampler (0)")


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    from mllm_tvm.artifact_cache import find_artifact
    from mllm_tvm.build import CompileSettings
    from mllm_tvm.runtime.engine import Engine
    from mllm_tvm.sampling import SamplingConfig

    begin = time.perf_counter()
    prompt = _prompt(args)
    sampling = SamplingConfig(args.temperature, args.top_k, args.top_p, args.seed)
    settings = CompileSettings.of(args.target, args.chunk_lengths, args.calibration)
    artifact = find_artifact(args.artifact or args.model, settings, show_stage)
    ready = time.perf_counter()
    with Engine(artifact, args.device, args.policy, args.chunk_lengths, args.profile) as engine:
        opened = time.perf_counter()
        pieces = engine.generate(prompt, args.max_tokens, sampling)
        if args.json:
            report = {"text": prompt + "".join(pieces), **_report(engine)}
            report["artifact_s"], report["open_s"] = round(ready - begin, 3), round(opened - ready, 3)
            print(json.dumps(report))
        else:
            _stream(prompt, pieces)
            print(_summary(engine, ready - begin, opened - ready), file=sys.stderr)
        _write_pictures(args, engine)
    return 0


def _prompt(args: argparse.Namespace) -> str:
    """The text to continue; raises PromptError when its file cannot be read."""
    from mllm_tvm.errors import PromptError

    if args.prompt_file is None:
        return str(args.prompt)
    try:
        content = sys.stdin.buffer.read() if args.prompt_file == "-" else Path(args.prompt_file).read_bytes()
        return content.decode().removesuffix("\n")  # which editors add
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"cannot read the prompt from {args.prompt_file} as UTF-8 text: {error}") from None


def _write_pictures(args: argparse.Namespace, engine: Engine) -> None:
    from mllm_tvm.report.chrome_trace import write_chrome_trace
    from mllm_tvm.report.html import html_report, write_html_report
    from mllm_tvm.report.timeline import timeline_events

    events = timeline_events(engine.stats.timeline)
    if args.trace:
        write_chrome_trace(args.trace, events, _report(engine))
    if args.report:
        facts = {name: str(value) for name, value in _report(engine).items()}
        title = f"Prefill of {engine.stats.prompt_tokens} tokens on {engine.stats.device}"
        write_html_report(args.report, html_report(title, facts, events))


def _stream(prompt: str, pieces: Iterable[str]) -> None:
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _report(engine: Engine) -> dict[str, object]:
    stats = engine.stats
    return {
        "prompt_tokens": stats.prompt_tokens,
        "generated_tokens": stats.generated_tokens,
        "device": stats.device,
        "npu_calls": stats.npu_calls,
        "npu_packets": stats.npu_packets,
        "chunk_lengths": list(stats.chunk_lengths),
        "policy": stats.policy,
        "clock": stats.clock,
        "ttft_s": round(stats.ttft_s, 4),
        "prefill_s": round(stats.prefill_s, 4),
        "decode_s": round(stats.decode_s, 4),
        "shadow": stats.shadow.report() if stats.shadow else None,
        "decisions": stats.scheduling.decisions,
        "scheduling_s": round(stats.scheduling.seconds, 6),
    }


def _summary(engine: Engine, artifact_s: float, open_s: float) -> str:
    stats = engine.stats
    rate = stats.generated_tokens / stats.decode_s if stats.decode_s else 0.0
    return (
        f"\n[{stats.device}, policy {stats.policy}, clock {stats.clock}] prompt {stats.prompt_tokens} tokens "
        f"in chunks {list(stats.chunk_lengths)}: {stats.npu_calls} NPU calls, {stats.npu_packets:,} packets\n"
        f"artifact {artifact_s:.2f} s, open device {open_s:.2f} s, first token {stats.ttft_s:.2f} s, "
        f"decode {stats.generated_tokens} tokens at {rate:.0f} tokens/s{_shadow_summary(stats.shadow)}"
    )


def _shadow_summary(shadow: ShadowMemory | None) -> str:
    if shadow is None:
        return ""
    return (
        f"\nshadow path: {shadow.outliers:.2f} outlier channels per token and linear, "
        f"{shadow.hits} from hot rows "
        f"({shadow.resident_bytes / 1e3:.0f} KB, {shadow.resident_share:.1%} of the model), "
        f"{shadow.misses} from int8 rows"
    )
