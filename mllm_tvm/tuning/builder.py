"""Builder of tuning: the candidates of a batch become kernels of one device server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.support.popen_pool import PopenPoolExecutor, StatusKind

from mllm_tvm.tuning.workload import Shape, shape_of, tiling_of
from targets.errors import ToolchainError
from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.target import HexagonTarget, hexagon_target
from targets.hexagon.tiling import Tiling
from targets.hexagon.toolchain import link_server

_COMPILE_SECONDS = 60.0


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

    @property
    def object_file(self) -> Path:
        """Where its code is, before it is linked."""
        return self.server.parent / f"{self.kernel}.o"


@derived_object
class HexagonBuilder(ms.builder.PyBuilder):
    """Compiles candidates, ``workers`` at a time, and links those that compile into one device server.

    LLVM takes most of a trial's time and runs under Python's lock: several workers are processes of their
    own. Call ``close`` when done.
    """

    def __init__(self, target: HexagonTarget, folder: Path, workers: int) -> None:
        super().__init__()
        self.target = target
        self.folder = folder
        self.batches = itertools.count()
        self.pool = PopenPoolExecutor(workers, timeout=_COMPILE_SECONDS) if workers > 1 else None

    def build(self, build_inputs: list[ms.builder.BuilderInput]) -> list[ms.builder.BuilderResult]:
        """A server for the batch; a candidate that does not compile has an error instead of an artifact."""
        folder = self.folder / f"batch{next(self.batches)}"
        folder.mkdir()
        schedules = [Schedule(entry.mod) for entry in build_inputs]
        candidates = [
            Candidate(folder / "server", f"candidate{i}", shape_of(sch.mod), tiling_of(sch))
            for i, sch in enumerate(schedules)
        ]
        errors = list(self._compile([(self.target.tag, candidate.encode()) for candidate in candidates]))
        objects = [c.object_file for c, error in zip(candidates, errors, strict=True) if error is None]
        if objects:
            link_server(objects, "qemu", folder / "server")
        return [_build_result(c, error) for c, error in zip(candidates, errors, strict=True)]

    def close(self) -> None:
        """Ends the workers."""
        if self.pool is not None:
            self.pool.shutdown()

    def _compile(self, jobs: list[tuple[str, str]]) -> Iterable[str | None]:
        if self.pool is None:
            return map(compile_candidate, jobs)
        return [
            result.value if result.status == StatusKind.COMPLETE else f"compilation failed: {result.value}"
            for result in self.pool.map_with_error_catching(compile_candidate, jobs)
        ]


def compile_candidate(job: tuple[str, str]) -> str | None:
    """Compiles an encoded candidate for a target tag into its object file; returns an error or None."""
    tag, text = job
    candidate = Candidate.decode(text)
    kernel = linear_w8a8(*candidate.shape, hvx=True, name=candidate.kernel, tiling=candidate.tiling)
    try:
        build_object({candidate.kernel: kernel}, hexagon_target(tag).llvm_target(), candidate.object_file)
    except ToolchainError as error:
        return str(error)
    return None


def _build_result(candidate: Candidate, error: str | None) -> ms.builder.BuilderResult:
    return ms.builder.BuilderResult(candidate.encode() if error is None else None, error)
