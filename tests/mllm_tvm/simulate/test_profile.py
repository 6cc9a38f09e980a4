"""Device profiles: those that ship load, and every bad figure is named."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from mllm_tvm.simulate.errors import SimulationError
from mllm_tvm.simulate.measure import STREAMED, K, Measurement, N, measured_profile
from mllm_tvm.simulate.profile import load_profile, parse_profile, profile_names
from mllm_tvm.simulate.profile_text import profile_text

TEXT = (resources.files("mllm_tvm") / "profiles" / "snapdragon-8gen3.toml").read_text("utf-8")


def test_profiles_that_ship() -> None:
    assert profile_names() == ("qemu-hvx", "snapdragon-8gen2", "snapdragon-8gen3")
    for name in profile_names():
        assert load_profile(name).name == name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("launch_s = 0.55e-3 ", "#", "npu: launch_s is missing"),
        ("[cpu]", "[gpu]", "unknown figure 'gpu'"),
        ("base_w = 1.0", "base_w = -1.0", "base_w is -1.0, expected more than 0"),
        ("sessions = 2", "sessions = 1.5", "sessions is 1.5, expected a whole number"),
        ("sessions = 2", "sessions = true", "sessions is True, expected a whole number"),
        ("idle_w = 0.1", "idle_w = -0.1", "idle_w is -0.1, expected 0 or more"),
        ("active_w = 3.86", "active_w = nan", "active_w is nan, expected more than 0"),
        ("active_w = 3.86", "active_w = inf", "active_w is inf, expected more than 0"),
        ("active_w = 3.86", 'active_w = "much"', "active_w is 'much', expected a number"),
        ("32 = 1.0", "32 = 1.5", "chunk_efficiency.32 is 1.5, expected at most 1"),
        ("32 = 1.0", "many = 1.0", "expected a table of rows = share"),
        ("32 = 1.0", "0 = 1.0", "expected a table of rows = share"),
        ("32 = 1.0", '"\u00b2" = 1.0', "expected a table of rows = share"),
        ("sessions = 2", "sessions = nan", "sessions is nan, expected a whole number"),
        ("sessions = 2", "sessions = inf", "sessions is inf, expected a whole number"),
        (
            "memory_bytes = 24000000000",
            f"memory_bytes = 1{400 * '0'}",
            "expected more than 0 .1e-30 to 1e.30",
        ),
        ('name = "snap', 'name = 5 # "', "name is 5, expected text"),
        ("base_w = 1.0", "base_w = 1e-300", "base_w is 1e-300, expected more than 0"),
        ('name = "snapdragon-8gen3"', 'name = " "', "name is ' ', expected text"),
        ("base_w = 1.0", "base_w = ", "is not TOML"),
    ],
)
def test_bad_figures(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(SimulationError, match=message):
        parse_profile(TEXT.replace(old, new, 1), "my.toml")


def test_unknown_profiles(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match=r"unknown device profile 'phone'.*snapdragon-8gen3"):
        load_profile("phone")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(SimulationError, match="cannot be read"):
        load_profile(str(binary))


@pytest.mark.parametrize("name", ["qemu-hvx", "snapdragon-8gen3"])
def test_a_profile_survives_its_file(tmp_path: Path, name: str) -> None:
    shipped = load_profile(name)
    odd = 'a "name"\nwith \\ and \x7f'
    profile = replace(shipped, name=odd, npu=replace(shipped.npu, launch_s=50.15e-6, clock_hz=1234567890.0))
    file = tmp_path / "mine.toml"
    file.write_text(profile_text(profile, shipped))
    assert load_profile(str(file)) == profile
    assert "launch_s = 50.15e-6  # measured\n" in file.read_text()
    assert "clock_hz = 1.23456789e9  # measured\n" in file.read_text()
    assert file.read_text().count("# measured") == 2


def test_measured_figures_replace_the_base() -> None:
    """1 GMAC/s at 16 rows and half of it at 1 row, by packets and by wall time."""
    base = load_profile("qemu-hvx")
    seconds = {1: K * N / 0.5e9, 16: 16 * K * N / 1e9}
    emulated = measured_profile(base, Measurement(seconds, 1e-6, None), "emulated")
    assert emulated.npu.int8_macs_per_s == pytest.approx(1e9)
    assert emulated.npu.chunk_efficiency == {"1": 0.5, "16": 1.0}
    assert emulated.npu.launch_s == base.npu.launch_s
    launched = {rows: taken + 1e-4 for rows, taken in seconds.items()}
    streamed = STREAMED[1] * STREAMED[2] / 20e9 + 1e-4
    timed = measured_profile(base, Measurement(launched, 1e-4, streamed), "timed")
    assert timed.npu.chunk_efficiency == {"1": 0.5, "16": 1.0}
    assert timed.npu.launch_s == timed.npu.synchronization_s == 1e-4
    assert timed.npu.bandwidth_bytes_per_s == timed.npu.dma_bytes_per_s == pytest.approx(20e9)
    for noisy in (Measurement(launched, 1.0, streamed), Measurement(launched, 1e-4, 1e-4)):
        with pytest.raises(SimulationError, match="no longer than an empty one"):
            measured_profile(base, noisy, "noisy")
