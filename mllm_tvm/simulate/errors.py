"""Errors of the simulator."""

from targets.errors import MllmTvmError


class SimulationError(MllmTvmError):
    """A device profile, model or configuration that cannot be simulated."""
