"""Checks the fields of a JSON file that a person may have edited, naming what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mllm_tvm.errors import MllmTvmError

# Above 0 and exact as float32.
TINY, HUGE = 2.0**-126, 2.0**127


class JsonFields:
    """Values of the file ``path`` by their kind; each method raises ``error`` naming field and value."""

    def __init__(self, path: Path, error: type[MllmTvmError]):
        self.path = path
        self._raise = error

    def boolean(self, where: str, value: object) -> bool:
        """``value`` if it is one."""
        if not isinstance(value, bool):
            raise self.error(where, "true or false", value)
        return value

    def error(self, where: str, expected: str, found: object) -> MllmTvmError:
        """The error to raise, for what ``where`` names."""
        return self._raise(f"{self.path}: {where}: expected {expected}, found {found!r}")

    def entries(self, where: str, value: object) -> dict[str, Any]:
        """A JSON object."""
        if not isinstance(value, dict):
            raise self.error(where, "a JSON object", value)
        return value

    def keys(self, where: str, entry: dict[str, Any], kind: type) -> None:
        """Checks that the keys are the fields of the dataclass ``kind``."""
        names = [field.name for field in dataclasses.fields(kind)]
        if sorted(entry) != sorted(names):
            raise self.error(where, f"the keys {sorted(names)}", sorted(entry))

    def items(self, where: str, value: object) -> list[Any]:
        """A list."""
        if not isinstance(value, list):
            raise self.error(where, "a list", value)
        return value

    def string(self, where: str, value: object) -> str:
        """A string."""
        if not isinstance(value, str):
            raise self.error(where, "a string", value)
        return value

    def integer(self, where: str, value: object) -> int:
        """An integer from 0 up."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(where, "an integer from 0 up", value)
        return value

    def number(self, where: str, value: Any, least: float = 0.0, most: float = HUGE) -> float:
        """A number within the bounds, as float."""
        # type(), as isinstance would let a boolean through.
        if type(value) not in (int, float) or not least <= value <= most:
            raise self.error(where, f"a number from {least:g} to {most:g}", value)
        return float(value)
