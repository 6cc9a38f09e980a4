"""Runner of tuning: the cost of candidates is counted on devices.

Cost is time in packets of one context at one packet a cycle: the larger of the packets and the memory traffic
at the target's bandwidth, plus a small part of the smaller so that ties go to the cheaper kernel. Counts are
deterministic, so each candidate runs once, on small data, and its result is compared bit for bit.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from mllm_tvm.tuning.bench import Bench, OpenSession, ReferenceCase
from mllm_tvm.tuning.builder import Candidate
from mllm_tvm.tuning.workload import Shape
from targets.errors import DeviceError
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import Tiling, rule_tiling, traffic

TIE_BREAK = 1 / 64
PACKETS_PER_SECOND = 1e9


def cost_packets(shape: Shape, tiling: Tiling, packets: float, target: HexagonTarget) -> float:
    """Time of one call in packets of one context, with the memory traffic."""
    moving = traffic(*shape, tiling).memory / target.bytes_per_packet
    return max(packets, moving) + TIE_BREAK * min(packets, moving)


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
