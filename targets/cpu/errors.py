"""What the CPU target raises for a Relax function it cannot lower."""

from __future__ import annotations

from tvm_ffi import register_error

from targets.errors import TargetError


# Registered, so that it keeps its type on its way through TVM's pass runner.
@register_error
class LoweringError(TargetError):
    """Operands that a CPU kernel has no form for; the message names them and what was expected."""
