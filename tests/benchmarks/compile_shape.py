"""Time, peak memory and artifact size of compiling a random model with a real model's shape.

    python -m tests.benchmarks.compile_shape [--config qwen1.5-0.5b] [--layers 12,24] [--shadow-share 0.15]
        [--prefill 256]

Prints one JSON object with a report for each number of layers (none given: the model's own). A model is
made first; its compilation runs in a process of its own, whose peak resident memory is reported, and beside
it the peak of the largest process it started. ``seconds`` and ``cpu_seconds`` (children included) are for
each stage. ``--prefill``: also runs that many tokens on the simulated Hexagon, with the last artifact, and
compares the packets with the sum of the kernels' own.
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
from types import SimpleNamespace
from typing import Any

LENGTHS = (64, 256)


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="qwen1.5-0.5b")
    parser.add_argument("--layers", default=None, metavar="N,N")
    parser.add_argument("--shadow-share", type=float, default=0.15)
    parser.add_argument("--prefill", type=int, default=0)
    parser.add_argument("--compile-only", nargs=2, metavar=("MODEL", "ARTIFACT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compile_only:
        print(json.dumps(_compile(*map(Path, args.compile_only), args.shadow_share)))
        return
    layers = [None] if args.layers is None else [int(part) for part in args.layers.split(",")]
    reports = []
    for count in layers:
        prefill = args.prefill if count == layers[-1] else 0
        with tempfile.TemporaryDirectory() as scratch:
            reports.append(measure(Path(scratch), args.config, count, args.shadow_share, prefill))
    print(json.dumps({"config": args.config, "shadow_share": args.shadow_share, "models": reports}, indent=1))


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


class _Clock:
    """Wall and processor seconds of stages, children included."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._last = self._now()

    def stage(self, name: str, _seconds: float = 0.0) -> None:
        """Ends a stage."""
        now, last = self._now(), self._last
        self._last = now
        self.seconds[name] = round(now[0] - last[0], 2)
        self.cpu_seconds[name] = round(now[1] - last[1], 2)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), sum(os.times()[:4])


def _compile(path: Path, output: Path, shadow_share: float) -> dict[str, Any]:
    clock = _Clock()
    import mllm_tvm as mt
    from mllm_tvm.compiler import compile
    from tests.mllm_tvm.shaped_model import uncalibrated_recipe

    clock.stage("import")
    model = mt.load_model(path)
    recipe = uncalibrated_recipe(model, shadow_share)
    clock.stage("load")
    compiled = compile(model, recipe, chunk_lengths=LENGTHS)
    clock.stage("passes")
    artifact = compiled.save(output, clock.stage)
    clock.stage("manifest")
    return {
        "layers": model.config.num_layers,
        "total_s": round(sum(clock.seconds.values()), 2),
        "total_cpu_s": round(sum(clock.cpu_seconds.values()), 2),
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_child_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        **_sizes(artifact, model),
    }


def _sizes(artifact: Any, model: Any) -> dict[str, Any]:
    files = {name: file.bytes for name, file in artifact.manifest.files.items()}
    total, weights = sum(files.values()), _weight_bytes(model)
    graph = artifact.manifest.graph
    return {
        "artifact_bytes": total,
        "weight_bytes": weights,
        "artifact_over_weights": round(total / weights, 4),
        "files": files,
        "functions": len(graph.functions),
        "npu_functions": sum(function.processor == "npu" for function in graph.functions),
        "calls": len(graph.calls),
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
        "prefill_over_kernels": round(stats.npu_packets / kernels, 4),
        "prefill_s": round(seconds, 1),
        "scheduling_us_per_decision": round(1e6 * stats.scheduling.seconds / stats.scheduling.decisions, 1),
        "scheduling_share": round(stats.scheduling.seconds / seconds, 6),
    }


def kernel_packets(path: Path, chunks: tuple[int, ...]) -> int:
    """The packets of every NPU call of a prefill, each kernel measured alone, on zeros.

    A fused MLP takes longer when its input has outliers, which zeros do not.
    """
    from mllm_tvm.artifact import load_artifact
    from mllm_tvm.runtime.task_graph import CallGraph

    artifact = load_artifact(path, check_hashes=False)
    graph = CallGraph(artifact.manifest.graph)
    calls = [artifact.manifest.graph.calls[i] for i in graph.live if not graph.is_head(i)]
    on_npu = [call for call in calls if graph.functions[call.function].processor == "npu"]
    total = 0
    for call in {call.function: call for call in on_npu}.values():
        count = sum(other.function == call.function for other in on_npu)
        for length in set(chunks):
            packets = _call_packets(artifact, graph.functions[call.function], call, length)
            total += packets * chunks.count(length) * count
    return total


class _Zeros:
    """Stands for the values of a run: arguments of 0, results dropped."""

    def __init__(self, shape: tuple[int, int]):
        self.shape = shape

    def arguments(self, step: Any) -> list[Any]:
        """An int8 array for each argument."""
        import numpy as np

        return [np.zeros(self.shape, np.int8) for _ in step.call.args]

    def store(self, step: Any, results: Any) -> None:
        """Nothing."""


def _call_packets(artifact: Any, function: Any, call: Any, rows: int) -> int:
    from mllm_tvm.artifact import DEVICE_SERVER
    from mllm_tvm.runtime.planner import ChunkPlan
    from mllm_tvm.runtime.workers import NpuWorker
    from targets.hexagon.session import open_session

    names = [name.removeprefix("param:") for name in call.args if name.startswith("param:")]
    weights = {name: artifact.parameters[name] for name in names}
    worker = NpuWorker(lambda: open_session("qemu", artifact.file(DEVICE_SERVER)), weights)
    step: Any = SimpleNamespace(call=call, function=function, plan=ChunkPlan(0, rows, rows))
    values: Any = _Zeros((rows, function.k))
    try:
        worker.lane.submit(worker.execute, step, values).result()
        return worker.counts.packets
    finally:
        worker.close()


if __name__ == "__main__":
    main()
