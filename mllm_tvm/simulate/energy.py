"""Energy of a timeline: the power of each processor's state, integrated."""

from __future__ import annotations

from collections.abc import Mapping

from .profile import DeviceProfile

ASSUMPTIONS = (
    "power is constant in each state of a processor (active, idle) and adds to a constant base",
    "a processor is active while a task runs on it, whatever the task",
    "active powers are what a CPU-only and a pure-NPU runtime were measured to draw on Snapdragon 8 Gen 3 "
    "(8.22 W, 4.96 W), less an assumed base",
    "screen, radio and charging losses are left out",
)


def energy_j(profile: DeviceProfile, seconds: float, busy_s: Mapping[str, float]) -> float:
    """Joules of ``seconds``, in which each processor is active for ``busy_s`` and idle for the rest."""
    total = profile.base_w * seconds
    for processor, state in (("npu", profile.npu), ("cpu", profile.cpu)):
        active = min(busy_s.get(processor, 0.0), seconds)
        total += state.active_w * active + state.idle_w * (seconds - active)
    return total
