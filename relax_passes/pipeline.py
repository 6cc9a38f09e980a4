"""The one list of passes, in phases, from an imported module to placed functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tvm
from tvm import ir, relax

from .analyze_token_axis import analyze_token_axis
from .fuse_mlp import FuseMlp
from .lower_linear import LowerLinear
from .partition import Partition
from .place import Place
from .quantize_w8a8 import LinearScheme, QuantizeW8A8

Observer = Callable[[str, ir.IRModule], None]


def phases(
    linears: Mapping[str, LinearScheme], shadow_dtype: str = "float16", fuse_mlp: bool = False
) -> dict[str, list[tvm.transform.Pass]]:
    """The passes of each phase, in order.

    Args:
        linears: weight names of the linears to quantize -> how.
        shadow_dtype: storage of the shadow path's weight rows, ``float16`` or ``float32``.
        fuse_mlp: gated MLPs become one integer function, their shadow paths included.
    """
    return {
        "analyse": [CheckTokenAxis()],
        "quantize": [QuantizeW8A8(linears, shadow_dtype), relax.transform.DeadCodeElimination()],
        "fuse": [relax.transform.CanonicalizeBindings(), FuseMlp()] if fuse_mlp else [],
        "lower": [LowerLinear(), relax.transform.CanonicalizeBindings()],
        "partition": [Partition()],
        "place": [Place()],
    }


def run(
    mod: ir.IRModule,
    linears: Mapping[str, LinearScheme],
    shadow_dtype: str = "float16",
    observe: Observer | None = None,
    last: str = "place",
    fuse_mlp: bool = False,
) -> ir.IRModule:
    """Runs the phases up to ``last``; ``observe("PHASE-PASS", module)`` is called after each pass.

    Raises:
        PassError: the module has an op without a rule, or ``linears`` names a weight that is not a linear's.
    """
    for phase, passes in phases(linears, shadow_dtype, fuse_mlp).items():
        for one in passes:
            mod = one(mod)
            if observe is not None:
                observe(f"{phase}-{one.info.name}", mod)
        if phase == last:
            break
    return mod


@tvm.transform.module_pass(opt_level=0, name="CheckTokenAxis")
class CheckTokenAxis:
    """Refuses a module with an op whose effect on tokens is unknown, before anything is rewritten."""

    def transform_module(self, mod: ir.IRModule, _context: tvm.transform.PassContext) -> ir.IRModule:
        analyze_token_axis(mod["main"])
        return mod
