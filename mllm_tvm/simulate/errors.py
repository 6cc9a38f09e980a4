"""Errors of the simulator."""

from targets.errors import MllmTvmError


class SimulationError(MllmTvmError):
    """A device profile, model or configuration that cannot be simulated."""


class ModelTooLargeError(SimulationError):
    """A model that the device's NPU cannot address, or its memory cannot hold with the prompt."""
