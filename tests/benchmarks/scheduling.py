"""What scheduling takes of real prefills: microseconds a decision, and the share of the time.

    python -m tests.benchmarks.scheduling [ARTIFACT] [--tokens 20 98 200 290] [--prefills 5] [--device qemu]

One JSON line for each length: a new engine, then that many prefills. The first follows a plan by estimates,
the second compares schedules by what the first one measured; the rest keep that plan unless durations move.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

import mllm_tvm as mt
from mllm_tvm.artifact_cache import find_artifact
from mllm_tvm.build import CompileSettings


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact", nargs="?", help="a compiled artifact (the demo model)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[20, 98, 200, 290], help="prompt lengths")
    parser.add_argument("--prefills", type=int, default=5, help="prefills of each length (5)")
    parser.add_argument("--device", default="qemu", help="qemu (default), host or tracker://host:port/key")
    parser.add_argument("--policy", default="ours", help="scheduling policy (ours)")
    args = parser.parse_args()
    settings = CompileSettings.of("qcom/hexagon-v68", None, None)
    artifact = find_artifact(args.artifact, settings, lambda *_: None)
    for tokens in args.tokens:
        with mt.Engine(artifact, args.device, args.policy) as engine:
            print(json.dumps(measure(engine, tokens, args.prefills)), flush=True)


def measure(engine: mt.Engine, tokens: int, prefills: int) -> dict[str, object]:
    """Figures of each prefill of ``tokens`` random tokens, in order."""
    ids = np.random.default_rng(0).integers(3, 300, tokens).tolist()
    rows = []
    for _ in range(prefills):
        engine.prefill(ids)
        cost, seconds = engine.stats.scheduling, engine.stats.prefill_s
        rows.append((1e6 * cost.seconds / cost.decisions, 100 * cost.seconds / seconds, 1e3 * seconds))
    return {
        "tokens": tokens,
        "chunks": list(engine.stats.chunk_lengths),
        "decisions": engine.stats.scheduling.decisions,
        "us_per_decision": [round(row[0], 1) for row in rows],
        "share_percent": [round(row[1], 2) for row in rows],
        "prefill_ms": [round(row[2]) for row in rows],
    }


if __name__ == "__main__":
    main()
