"""The base of every error a user can cause; it lives in the lowest room that raises one."""


class MllmTvmError(Exception):
    """Base of all errors this project raises for bad input or a bad environment.

    The message names the offending value, what was expected and what to do.
    """


class TargetError(MllmTvmError):
    """An unknown target tag, or a shape the target cannot run."""


class ToolchainError(MllmTvmError):
    """The cross compiler or the emulator is missing or failed."""


class DeviceError(MllmTvmError):
    """A device could not be opened, refused a request, ran out of memory or died."""
