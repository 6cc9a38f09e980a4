"""Compile time, peak memory and artifact size of a random model with a real model's shape.

    python -m tests.benchmarks.compile_shape [--config qwen1.5-0.5b] [--layers N] [--prefill N]

The model is made first, in the same directory; the compilation runs in a process of its own, whose peak
resident memory is what is reported. ``--prefill``: runs that many tokens on the simulated Hexagon and
compares the packets with the sum of the kernels' own. ``--shadow-share``: of the linears, see
``uncalibrated_recipe``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LENGTHS = (64, 256)


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="qwen1.5-0.5b")
    parser.add_argument("--layers", type=int, default=None)
    parser.add_argument("--shadow-share", type=float, default=0.0)
    parser.add_argument("--prefill", type=int, default=0)
    parser.add_argument("--compile-only", nargs=2, metavar=("MODEL", "ARTIFACT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compile_only:
        print(json.dumps(_compile(*map(Path, args.compile_only), args.shadow_share)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch), args.config, args.layers, args.shadow_share, args.prefill)))


def measure(
    scratch: Path, config: str, layers: int | None, shadow_share: float, prefill: int = 0
) -> dict[str, Any]:
    """Makes the model, compiles it in a new process, and measures."""
    from tests.mllm_tvm.shaped_model import save_shaped

    changes = {} if layers is None else {"num_hidden_layers": layers}
    model, artifact = save_shaped(scratch / "model", config, **changes), scratch / "artifact"
    module = "tests.benchmarks.compile_shape"
    command = [sys.executable, "-m", module, "--shadow-share", str(shadow_share)]
    command += ["--compile-only", str(model), str(artifact)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(result.stdout.splitlines()[-1])
    return {**report, **(_prefill(artifact, prefill) if prefill else {})}


def _compile(path: Path, output: Path, shadow_share: float) -> dict[str, Any]:
    begin, cpu = time.perf_counter(), os.times()
    import mllm_tvm as mt
    from tests.mllm_tvm.shaped_model import uncalibrated_recipe

    model = mt.load_model(path)
    recipe = uncalibrated_recipe(model, shadow_share)
    built = time.perf_counter()
    artifact = mt.compile(model, recipe, chunk_lengths=LENGTHS).save(output)
    end = os.times()
    return {
        "seconds": round(time.perf_counter() - begin, 2),
        "load_s": round(built - begin, 2),
        "cpu_s": round(sum(end[:4]) - sum(cpu[:4]), 2),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "artifact_bytes": sum(file.bytes for file in artifact.manifest.files.values()),
        "weight_bytes": _weight_bytes(model),
        "files": {name: file.bytes for name, file in artifact.manifest.files.items()},
    }


def _weight_bytes(model: Any) -> int:
    """Int8 linears plus embeddings as the checkpoint stores them."""
    from mllm_tvm.frontend.parameters import Weight
    from relax_passes.expose_linear_inputs import linear_inputs

    specs = model.parameters.specs
    linears = {name for group in linear_inputs(model.module["main"]).values() for name in group}
    sizes = {name: spec.shape[0] * spec.shape[1] for name, spec in specs.items() if len(spec.shape) == 2}
    tables = [n for n, s in specs.items() if n in sizes and isinstance(s, Weight) and n not in linears]
    item = {"float16": 2, "float32": 4}
    return sum(sizes[n] for n in linears) + sum(sizes[n] * item[model.parameters.dtype(n)] for n in tables)


def _prefill(artifact: Path, tokens: int) -> dict[str, Any]:
    import numpy as np

    import mllm_tvm as mt

    ids = np.random.default_rng(0).integers(3, 300, tokens).tolist()
    with mt.Engine(artifact, "qemu") as engine:
        begin = time.perf_counter()
        engine.prefill(ids)
        stats = engine.stats
        seconds = time.perf_counter() - begin
    kernels = kernel_packets(artifact, stats.chunk_lengths)
    return {
        "prefill_tokens": tokens,
        "chunks": list(stats.chunk_lengths),
        "prefill_packets": stats.npu_packets,
        "kernel_packets": kernels,
        "prefill_s": round(seconds, 1),
    }


def kernel_packets(path: Path, chunks: tuple[int, ...]) -> int:
    """The packets of every NPU call of a prefill, each kernel measured alone on the device."""
    import numpy as np

    from mllm_tvm.artifact import DEVICE_SERVER, load_artifact
    from mllm_tvm.runtime.task_graph import CallGraph
    from targets.hexagon.session import open_session
    from targets.packing import packed_shape

    artifact = load_artifact(path, check_hashes=False)
    graph = CallGraph(artifact.manifest.graph)
    calls = [artifact.manifest.graph.calls[i] for i in graph.live if not graph.is_head(i)]
    total = 0
    with open_session("qemu", artifact.file(DEVICE_SERVER)) as session:
        for name in dict.fromkeys(call.function for call in calls):
            function = graph.functions[name]
            if function.processor != "npu":
                continue
            weight = session.upload(np.full(packed_shape(function.k, function.n), 130, np.uint8))
            for length in set(chunks):
                x, y = (
                    session.empty((length, function.k), "int8"),
                    session.empty((length, function.n), "int32"),
                )
                packets = session.call(f"{name}_m{length}", x, weight, y).packets
                total += packets * chunks.count(length) * sum(call.function == name for call in calls)
    return total


if __name__ == "__main__":
    main()
