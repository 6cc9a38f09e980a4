"""The kernels of a model's NPU functions, one for each chunk length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tvm import tirx

from mllm_tvm.manifest import FunctionSpec
from mllm_tvm.tuning.tilings import choose_tilings
from mllm_tvm.tuning.workload import Shape
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.mlp import MlpShape, mlp_w8a8
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import Tiling


@dataclass(frozen=True)
class _Kernel:
    """A function at one chunk length."""

    function: FunctionSpec
    m: int

    @property
    def name(self) -> str:
        return f"{self.function.name}_m{self.m}"

    @property
    def mlp(self) -> MlpShape | None:
        f = self.function
        return MlpShape(self.m, f.k, f.channels, f.n) if f.kind == "mlp" else None

    @property
    def linears(self) -> list[Shape]:
        """The integer linears it consists of."""
        if self.mlp is not None:
            return [Shape(*shape) for shape in self.mlp.linears]
        return [Shape(self.m, self.function.k, self.function.n)]

    def emit(self, tilings: dict[Shape, Tiling], hvx: bool, contexts: int) -> tirx.PrimFunc:
        found = [tilings.get(shape) for shape in self.linears]
        if self.mlp is not None:
            return mlp_w8a8(
                self.mlp, hvx=hvx, name=self.name, tilings=(found[0], found[1]), contexts=contexts
            )
        return linear_w8a8(*self.linears[0], hvx=hvx, name=self.name, tiling=found[0], contexts=contexts)


def npu_kernels(
    functions: Iterable[FunctionSpec], chunk_lengths: Sequence[int], target: HexagonTarget, hexagon: bool
) -> dict[str, tirx.PrimFunc]:
    """Kernel name -> PrimFunc for ``target``, or for this CPU unless ``hexagon``.

    Raises TuningError for a damaged log, TargetError for a shape that cannot fit the target.
    """
    kernels = [_Kernel(f, m) for f in functions if f.processor == "npu" for m in chunk_lengths]
    shapes = [shape for kernel in kernels for shape in kernel.linears]
    tilings = choose_tilings(shapes, target) if hexagon else {}
    contexts = target.contexts if hexagon else 1
    return {kernel.name: kernel.emit(tilings, hexagon, contexts) for kernel in kernels}
