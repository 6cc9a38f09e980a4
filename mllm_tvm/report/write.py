"""Writing report files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from targets.errors import MllmTvmError


class ReportError(MllmTvmError):
    """A trace or report file cannot be written."""


def write_text(path: Path, text: str) -> None:
    """Writes to a temporary file beside ``path`` and renames it; raises ReportError."""
    if not path.name:
        raise ReportError(f"cannot write {str(path)!r}: it names no file; choose another")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ReportError(f"cannot write {path}: {error.strerror or error}; choose another file") from error
