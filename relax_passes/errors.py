"""What a pass raises when it meets a graph it has no rule for."""

from tvm_ffi import register_error


# Registered, so that it keeps its type on its way through TVM's pass runner.
@register_error
class PassError(ValueError):
    """A graph outside of what the passes handle; the message names the op and the value."""
