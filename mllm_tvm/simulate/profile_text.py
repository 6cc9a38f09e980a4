"""Device profiles as TOML text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal

from .profile import DeviceProfile


def profile_text(profile: DeviceProfile, base: DeviceProfile | None = None) -> str:
    """The profile as TOML that ``load_profile`` reads; figures that differ from ``base`` are marked."""
    data = asdict(profile)
    old = asdict(base) if base else data
    efficiency, old_efficiency = (values["npu"].pop("chunk_efficiency") for values in (data, old))
    lines = _figures({key: value for key, value in data.items() if not isinstance(value, dict)}, data)
    lines += ["", "[npu]", *_figures(data["npu"], old["npu"])]
    mark = "" if efficiency == old_efficiency else _MEASURED
    lines += ["", f"[npu.chunk_efficiency]{mark}", *_figures(efficiency, efficiency)]
    return "\n".join([*lines, "", "[cpu]", *_figures(data["cpu"], old["cpu"])]) + "\n"


_MEASURED = "  # measured"


def _figures(values: Mapping[str, object], base: Mapping[str, object]) -> list[str]:
    return [
        f"{name} = {_toml(value)}{'' if value == base[name] else _MEASURED}" for name, value in values.items()
    ]


def _toml(value: object) -> str:
    """Text as JSON has it; numbers with an exponent that is a multiple of three, exactly."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if not isinstance(value, float) or value == 0.0 or 1e-3 <= value < 1e3:
        return repr(value)
    exact = Decimal(repr(value))
    power = exact.adjusted() // 3 * 3
    return f"{exact.scaleb(-power).normalize():f}e{power}"
