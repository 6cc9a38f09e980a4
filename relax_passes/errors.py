"""What a pass raises when it meets a graph it has no rule for."""


class PassError(ValueError):
    """A graph outside of what the passes handle; the message names the op and the value."""
