"""Builder and runner of tuning: candidates become kernels of one device server, and their cost is counted.

Cost is time in packets of one context at one packet a cycle: the larger of the packets and the memory traffic
at the target's bandwidth, plus a small part of the smaller so that ties go to the cheaper kernel. Counts are
deterministic, so each candidate runs once, on small data, and its result is compared bit for bit.
"""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from mllm_tvm.tuning.bench import Bench, OpenSession, ReferenceCase
from mllm_tvm.tuning.workload import Shape, shape_of, tiling_of
from targets.errors import DeviceError, ToolchainError
from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import Tiling, rule_tiling, traffic
from targets.hexagon.toolchain import link_server

TIE_BREAK = 1 / 64
PACKETS_PER_SECOND = 1e9


class Candidate(NamedTuple):
    """A kernel of a server: what an artifact path says."""

    server: Path
    kernel: str
    shape: Shape
    tiling: Tiling

    def encode(self) -> str:
        """As a string, which is all MetaSchedule passes from builder to runner."""
        return json.dumps([str(self.server), self.kernel, self.shape, astuple(self.tiling)])

    @classmethod
    def decode(cls, text: str) -> Candidate:
        """The inverse of ``encode``."""
        server, kernel, shape, tiling = json.loads(text)
        return cls(Path(server), kernel, Shape(*shape), Tiling(*tiling))


def cost_packets(shape: Shape, tiling: Tiling, packets: float, target: HexagonTarget) -> float:
    """Time of one call in packets of one context, with the memory traffic."""
    moving = traffic(*shape, tiling).memory / target.bytes_per_packet
    return max(packets, moving) + TIE_BREAK * min(packets, moving)


@derived_object
class HexagonBuilder(ms.builder.PyBuilder):
    """Compiles each candidate, and links those that compile into one device server."""

    def __init__(self, target: HexagonTarget, folder: Path) -> None:
        super().__init__()
        self.target = target
        self.folder = folder
        self.batches = itertools.count()

    def build(self, build_inputs: list[ms.builder.BuilderInput]) -> list[ms.builder.BuilderResult]:
        """A server for the batch; a candidate that does not compile has an error instead of an artifact."""
        folder = self.folder / f"batch{next(self.batches)}"
        folder.mkdir()
        schedules = [Schedule(entry.mod) for entry in build_inputs]
        candidates = [
            Candidate(folder / "server", f"candidate{i}", shape_of(sch.mod), tiling_of(sch))
            for i, sch in enumerate(schedules)
        ]
        errors = [self._compile(candidate) for candidate in candidates]
        objects = [_object(c) for c, error in zip(candidates, errors, strict=True) if error is None]
        if objects:
            link_server(objects, "qemu", folder / "server")
        return [_build_result(c, error) for c, error in zip(candidates, errors, strict=True)]

    def _compile(self, candidate: Candidate) -> str | None:
        kernel = linear_w8a8(*candidate.shape, hvx=True, name=candidate.kernel, tiling=candidate.tiling)
        try:
            build_object({candidate.kernel: kernel}, self.target.llvm_target(), _object(candidate))
        except ToolchainError as error:
            return str(error)
        return None


def _object(candidate: Candidate) -> Path:
    return candidate.server.parent / f"{candidate.kernel}.o"


def _build_result(candidate: Candidate, error: str | None) -> ms.builder.BuilderResult:
    return ms.builder.BuilderResult(candidate.encode() if error is None else None, error)


@derived_object
class _Future(ms.runner.PyRunnerFuture):
    def __init__(self, future: Future[ms.runner.RunnerResult]) -> None:
        super().__init__()
        self.future = future

    def done(self) -> bool:
        """Whether the measurement ended."""
        return self.future.done()

    def result(self) -> ms.runner.RunnerResult:
        """The measurement, once it ended."""
        return self.future.result()


@derived_object
class DeviceRunner(ms.runner.PyRunner):
    """Runs candidates on ``devices`` sessions at a time.

    A device that dies is replaced once for each candidate. When none can be had, ``lost`` holds the reason,
    and what has not been measured fails; the candidate that killed a device fails alone.
    """

    def __init__(self, target: HexagonTarget, open_session: OpenSession, devices: int) -> None:
        super().__init__()
        self.target = target
        self.open_session = open_session
        self.devices = devices
        self.lost: DeviceError | None = None
        self.cases: dict[Shape, ReferenceCase] = {}
        self.pool = ThreadPoolExecutor(devices, thread_name_prefix="tuning-device")

    def run(self, runner_inputs: list[ms.runner.RunnerInput]) -> list[ms.runner.RunnerFuture]:
        """Starts measuring; the results come through futures."""
        candidates = [Candidate.decode(str(entry.artifact_path)) for entry in runner_inputs]
        # Here, not in the threads: a fork (a device being started) during another thread's BLAS call hangs.
        self.cases = {shape: ReferenceCase.of(shape) for shape in {c.shape for c in candidates}}
        futures: list[Future[ms.runner.RunnerResult]] = [Future() for _ in candidates]
        todo = list(zip(candidates, futures, strict=True))
        todo.reverse()
        lock = threading.Lock()
        for _ in range(min(self.devices, len(todo))):
            self.pool.submit(self._work, todo, lock)
        return [_Future(future) for future in futures]

    def floor(self, shape: Shape) -> float:
        """The least cost a kernel of ``shape`` can have."""
        return cost_packets(shape, rule_tiling(*shape), shape.macs / shape.limit, self.target)

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown()

    def _work(self, todo: list[tuple[Candidate, Future]], lock: threading.Lock) -> None:
        bench: Bench | None = None
        while True:
            with lock:
                if not todo:
                    break
                candidate, future = todo.pop()
            bench, result = self._measure(bench, candidate)
            future.set_result(result)
        if bench is not None:
            bench.session.close()

    def _measure(
        self, bench: Bench | None, candidate: Candidate
    ) -> tuple[Bench | None, ms.runner.RunnerResult]:
        """Measures ``candidate``, on a new device if there is none; returns the device for the next one.

        Whatever goes wrong, it must not leave a future without a result.
        """
        message = ""
        for _ in range(2):
            try:
                session = bench.session if bench else self.open_session(candidate.server)
            except Exception as error:
                self.lost = error if isinstance(error, DeviceError) else DeviceError(str(error))
                return None, ms.runner.RunnerResult(None, str(error))
            try:
                bench = bench or Bench(session, self.cases[candidate.shape])
                return bench, self._result(bench, candidate)
            except Exception as error:
                session.close()
                bench, message = None, str(error)
        return None, ms.runner.RunnerResult(None, message)

    def _result(self, bench: Bench, candidate: Candidate) -> ms.runner.RunnerResult:
        outcome = bench.run(candidate.kernel)
        if not outcome.exact:
            return ms.runner.RunnerResult(None, f"{candidate.tiling} gives a wrong result")
        cost = cost_packets(candidate.shape, candidate.tiling, outcome.packets, self.target)
        return ms.runner.RunnerResult([cost / PACKETS_PER_SECOND], None)
