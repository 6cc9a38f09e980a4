"""Device profiles: what a device can do, as a readable TOML file.

Every figure is in base units (seconds, bytes, multiply-accumulates, watts). ``mllm_tvm/profiles`` holds the
profiles that ship; each says in its comments where every figure comes from.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from .errors import SimulationError

SUFFIX = ".toml"
_ROWS = re.compile("[1-9][0-9]{0,8}")
_LEAST, _MOST = 1e-30, 1e30
"""Smaller and larger figures are slips: they would only overflow."""
_MAY_BE_ZERO = {
    "launch_s",
    "synchronization_s",
    "idle_w",
    "build_s_per_squared_weight",
    "setup_s_per_channel",
}


@dataclass(frozen=True)
class NpuProfile:
    """The NPU and the software that drives it."""

    contexts: int
    """Hardware threads with vector units."""
    clock_hz: float
    int8_macs_per_s: float
    """Of all contexts, at full chunk-length efficiency."""
    bandwidth_bytes_per_s: float
    """At which weights are streamed from main memory."""
    dma_bytes_per_s: float
    """At which activations are moved in and out."""
    vector_bytes_per_s: float
    """At which the vector units read float data for element-wise work."""
    launch_s: float
    """From the CPU's request to the start of a function and back, beside its work."""
    synchronization_s: float
    """Waiting for a float result of the CPU that has to be added to an integer result."""
    float_s_per_element: float
    """Of attention in float, per element of keys, values (whatever the rows they meet) and scores."""
    grouped_slowdown: float
    """Of linears quantized in groups along K (products of groups, added in float) against per tensor."""
    build_s_per_squared_weight: float
    """Building and optimizing the graph of a new prompt length, per layer and square of its weights."""
    plain_shape_slowdown: float
    """Of activations in their plain shape against the best equivalent shape."""
    memory_bytes: int
    """One session's address space."""
    sessions: int
    """How many sessions may be open together."""
    chunk_efficiency: dict[str, float]
    """Rows -> share of ``int8_macs_per_s`` reached, linear in between."""
    active_w: float
    idle_w: float


@dataclass(frozen=True)
class CpuProfile:
    """The CPU cores that work on a prompt."""

    int8_macs_per_s: float
    float_macs_per_s: float
    bandwidth_bytes_per_s: float
    launch_s: float
    setup_s_per_channel: float
    """Allocating and first touching a prefill's state, per layer and hidden channel."""
    memory_bytes: int
    """Main memory of the device."""
    active_w: float
    idle_w: float


@dataclass(frozen=True)
class DeviceProfile:
    """A device: its processors and the power that everything else draws."""

    name: str
    description: str
    base_w: float
    npu: NpuProfile
    cpu: CpuProfile

    @property
    def npu_memory_bytes(self) -> int:
        """What all sessions of the NPU can address."""
        return self.npu.memory_bytes * self.npu.sessions


def profile_names() -> tuple[str, ...]:
    """Names of the profiles that ship."""
    files = resources.files("mllm_tvm") / "profiles"
    return tuple(sorted(f.name.removesuffix(SUFFIX) for f in files.iterdir() if f.name.endswith(SUFFIX)))


def load_profile(name: str) -> DeviceProfile:
    """The shipped profile of that name, or the TOML file at that path.

    Raises SimulationError for an unknown name, and for a figure that is missing, unknown or out of range.
    """
    if name in profile_names():
        text = (resources.files("mllm_tvm") / "profiles" / (name + SUFFIX)).read_text("utf-8")
    elif Path(name).is_file():
        text = _read(Path(name))
    else:
        known = ", ".join(profile_names())
        raise SimulationError(f"unknown device profile {name!r}: expected one of {known}, or a TOML file")
    return parse_profile(text, name)


def parse_profile(text: str, where: str) -> DeviceProfile:
    """A profile from TOML text; ``where`` is named in errors. Raises SimulationError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SimulationError(f"device profile {where} is not TOML: {error}") from error
    profile = _decode(DeviceProfile, data, where)
    assert isinstance(profile, DeviceProfile)
    return profile


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SimulationError(f"device profile {path} cannot be read: {error}") from error


def _decode(kind: Any, data: Mapping[str, Any], where: str) -> Any:
    """``data`` as a dataclass whose every field must be there, and no other."""
    known = {field.name: field for field in fields(kind)}
    for name in data:
        if name not in known:
            raise SimulationError(f"{where}: unknown figure {name!r}; expected {', '.join(known)}")
    values = {}
    for name, hint in get_type_hints(kind).items():
        if name in data:
            values[name] = _value(hint, data[name], f"{where}: {name}")
        elif known[name].default is MISSING:
            raise SimulationError(f"{where}: {name} is missing; every profile needs it")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise SimulationError(f"{where} is {value!r}, expected a table")
        return _decode(hint, value, where)
    if hint is str:
        if not isinstance(value, str) or not value.strip():
            raise SimulationError(f"{where} is {value!r}, expected text")
        return value
    if hint is int or hint is float:
        return hint(_number(value, where, whole=hint is int))
    return _efficiency(value, where)


def _number(value: Any, where: str, whole: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or (whole and value % 1 != 0):
        raise SimulationError(f"{where} is {value!r}, expected a {'whole ' if whole else ''}number")
    zero = where.rsplit(" ", 1)[-1] in _MAY_BE_ZERO
    if not (_LEAST <= value <= _MOST or (zero and value == 0)):
        least = "0 or more" if zero else "more than 0"
        raise SimulationError(f"{where} is {value!r}, expected {least} ({_LEAST:g} to {_MOST:g})")
    return value


def _efficiency(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, dict) or not value or not all(_ROWS.fullmatch(rows) for rows in value):
        raise SimulationError(f"{where} is {value!r}, expected a table of rows = share")
    for rows, share in value.items():
        if _number(share, f"{where}.{rows}", whole=False) > 1:
            raise SimulationError(f"{where}.{rows} is {share!r}, expected at most 1")
    return dict(value)
