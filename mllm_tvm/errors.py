"""Errors a user can meet. All are subclasses of :class:`MllmTvmError`."""

from targets.errors import DeviceError, MllmTvmError, TargetError, ToolchainError

__all__ = [
    "ArtifactError",
    "CalibrationError",
    "CompileError",
    "DeviceError",
    "EvaluationError",
    "MllmTvmError",
    "ModelError",
    "PromptError",
    "TargetError",
    "ToolchainError",
]


class ModelError(MllmTvmError):
    """A model directory or file is missing, damaged or of an unsupported kind."""


class CalibrationError(MllmTvmError):
    """Calibration text or a recipe does not fit the model."""


class CompileError(MllmTvmError):
    """A module cannot be compiled: an op without a rule, or a setting out of range."""


class ArtifactError(MllmTvmError):
    """An artifact directory is missing, damaged or of another schema."""


class PromptError(MllmTvmError):
    """A prompt or a sampling setting is out of range."""


class EvaluationError(MllmTvmError):
    """An evaluation task or scheme is unknown, or its text has nothing to measure."""
