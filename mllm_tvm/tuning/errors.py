"""Errors of tuning."""

from targets.errors import MllmTvmError


class TuningError(MllmTvmError):
    """A tuning log is damaged or of another schema, a setting is out of range, or tuning was cut short."""
