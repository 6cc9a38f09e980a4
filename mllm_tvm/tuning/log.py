"""Tuning logs: a MetaSchedule JSON database for each target, under ``tuning_logs/<target>/``."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from mllm_tvm.tuning.errors import TuningError
from mllm_tvm.tuning.workload import Shape, canonical, tiling_of, workload
from targets.hexagon.target import HexagonTarget
from targets.hexagon.tiling import Tiling

SCHEMA_VERSION = 1
_SCHEMA_FILE = "schema.json"
_WORKLOADS = "database_workload.json"
_RECORDS = "database_tuning_record.json"


def default_root() -> Path:
    """The ``tuning_logs`` folder beside the package, which the compiler reads."""
    return Path(__file__).resolve().parents[2] / "tuning_logs"


class TuningLog:
    """Finished trials of one target. Raises TuningError for a damaged log or one of another schema."""

    def __init__(self, target: HexagonTarget, root: Path | None = None) -> None:
        self.target = target
        self.folder = (default_root() if root is None else root) / target.tag
        self._database: ms.database.Database | None = None
        if (self.folder / _RECORDS).exists() or (self.folder / _SCHEMA_FILE).exists():
            self._check()
            self._database = self._open(allow_missing=False)

    @property
    def database(self) -> ms.database.Database | None:
        """MetaSchedule's database, None when nothing was tuned for the target."""
        return self._database

    def best(self, shape: Shape) -> Tiling | None:
        """The cheapest measured tiling of ``shape``, None when it was not tuned."""
        if self._database is None:
            return None
        module = workload(canonical(shape))
        record = self._database.query_tuning_record(module, self.target.llvm_target(), "main")
        return None if record is None else record_tiling(record)

    def records(self, shape: Shape) -> list[ms.database.TuningRecord]:
        """Finished trials of ``shape``, cheapest first."""
        module = workload(canonical(shape))
        if self._database is None or not self._database.has_workload(module):
            return []
        stored = self._database.commit_workload(module)
        return list(self._database.get_top_k(stored, len(self._database)))

    @contextmanager
    def tuning(self) -> Iterator[ms.database.Database]:
        """The database to add trials to, made when missing, for one process at a time.

        A last line that a killed process left unfinished is dropped. Raises TuningError when the folder
        cannot be written, another process tunes into it, or the log is damaged.
        """
        with self._lock_file() as lock:
            self._lock(lock.fileno())
            self._begin()
            yield self._database

    def _lock_file(self) -> TextIO:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return (self.folder / ".lock").open("w")
        except OSError as error:
            raise TuningError(
                f"cannot write tuning log {self.folder}: {error}; use another --logs folder"
            ) from error

    def _lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TuningError(
                f"another process is tuning into {self.folder}: wait for it or use another --logs folder"
            ) from error

    def _begin(self) -> None:
        if not (self.folder / _SCHEMA_FILE).exists():
            _write(self.folder / _SCHEMA_FILE, json.dumps(_schema(self.target)) + "\n")
        for name in (_WORKLOADS, _RECORDS):
            (self.folder / name).touch()
            _drop_unfinished_line(self.folder / name)
        self._check()
        self._database = self._open(allow_missing=False)

    def _open(self, allow_missing: bool) -> ms.database.Database:
        try:
            return ms.database.JSONDatabase(
                str(self.folder / _WORKLOADS), str(self.folder / _RECORDS), allow_missing=allow_missing
            )
        except Exception as error:  # tvm raises several types for what it cannot parse
            raise _damaged(self.folder, str(error).strip().splitlines()[-1]) from error

    def _check(self) -> None:
        schema = _parse(self.folder / _SCHEMA_FILE, _read(self.folder / _SCHEMA_FILE))
        expected = _schema(self.target)
        if schema != expected:
            raise TuningError(
                f"tuning log {self.folder} has schema {schema}, but this version reads {expected}: "
                "move it away and tune again"
            )
        workloads = _lines(self.folder / _WORKLOADS, is_workload)
        _lines(self.folder / _RECORDS, lambda value: is_record(value, workloads))


def record_tiling(record: ms.database.TuningRecord) -> Tiling:
    """The tiling a finished trial measured."""
    sch = Schedule(record.workload.mod)
    record.trace.apply_to_schedule(sch, remove_postproc=False)
    return tiling_of(sch)


def _schema(target: HexagonTarget) -> dict[str, object]:
    # Structural hashes and traces belong to a version of TVM.
    return {"schema_version": SCHEMA_VERSION, "target": target.tag, "tvm": tvm.__version__}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error


def _parse(path: Path, text: str, line: int = 1) -> object:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _damaged(path, f"line {line} is not JSON ({error})") from error


def _lines(path: Path, is_valid: Callable[[object], bool]) -> int:
    """The number of lines of a table; raises TuningError for one MetaSchedule would crash on."""
    lines = _read(path).splitlines()
    for number, line in enumerate(lines, 1):
        if not is_valid(_parse(path, line, number)):
            raise _damaged(path, f"line {number} is no entry of this table")
    return len(lines)


def is_workload(value: object) -> bool:
    """Whether ``value`` is a structural hash and an encoded module."""
    match value:
        case [str(), str()]:
            return True
    return False


def is_record(value: object, workloads: int) -> bool:
    """Whether ``value`` is the number of a workload, a trace, durations, a target and arguments."""
    match value:
        case [int(index), [[list(instructions), list(decisions)], [*seconds], dict(), list()]]:
            return (
                0 <= index < workloads
                and bool(seconds)
                and all(isinstance(second, int | float) for second in seconds)
                and all(isinstance(entry, list) and len(entry) == 4 for entry in instructions)
                and all(isinstance(entry, list) and len(entry) == 2 for entry in decisions)
            )
    return False


def _damaged(path: Path, cause: str) -> TuningError:
    return TuningError(
        f"tuning log {path} is damaged: {cause}. Restore it, or move its folder away and tune again"
    )


def _drop_unfinished_line(path: Path) -> None:
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        kept = text[: text.rfind(b"\n") + 1]
        try:
            json.loads(text[len(kept) :])
            kept = text + b"\n"
        except ValueError:
            pass
        _write(path, kept.decode())


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
