"""Which tiling the compiler uses for each kernel: the tuned one, or a rule and a word about it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from mllm_tvm.tuning.log import TuningLog
from mllm_tvm.tuning.workload import Shape
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import Tiling, fit_vtcm, rule_tiling


def choose_tilings(
    shapes: Iterable[Shape], target: HexagonTarget, root: Path | None = None
) -> dict[Shape, Tiling]:
    """The tiling of each shape, fitted to the target's VTCM and contexts.

    Shapes missing in the tuning log (``tuning_logs`` beside the package, or ``root``) get a rule-based one,
    and one line on the error stream counts them. Raises TuningError for a damaged log, TargetError for a
    shape that cannot fit the target.
    """
    log = TuningLog(target, root)
    wanted = list(dict.fromkeys(shapes))
    tuned = {shape: log.best(shape) for shape in wanted}
    missing = [shape for shape, tiling in tuned.items() if tiling is None]
    if missing:
        print(
            f"{len(missing)} of {len(wanted)} kernels ({', '.join(map(str, missing[:3]))}"
            f"{', ...' if len(missing) > 3 else ''}) are not tuned for {target.tag}: using rules; "
            "`mllm-tvm tune` measures them",
            file=sys.stderr,
        )
    return {
        shape: fit_vtcm(
            *shape, tuned[shape] or rule_tiling(*shape), target.vtcm_bytes, contexts=target.contexts
        )
        for shape in wanted
    }
