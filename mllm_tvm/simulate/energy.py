"""Energy of a timeline: the power of each processor's state, integrated."""

from __future__ import annotations

from collections.abc import Mapping

from .profile import DeviceProfile


def energy_assumptions(profile: DeviceProfile) -> tuple[str, ...]:
    """What the joules of a profile rest on."""
    npu, cpu = profile.npu, profile.cpu
    return (
        "power is constant in each state of a processor (active, idle) and adds to a constant base",
        "a processor is active while a task runs on it, whatever the task",
        f"{profile.name} draws {profile.base_w:g} W, its NPU another {npu.active_w:g} W (idle "
        f"{npu.idle_w:g} W), its CPU {cpu.active_w:g} W (idle {cpu.idle_w:g} W)",
        "on snapdragon-8gen3 a CPU-only and a pure-NPU runtime draw the measured 8.22 W and 4.96 W; base and "
        "idle powers are assumed. Other profiles say in their files where their powers come from",
        "screen, radio and charging losses are left out",
    )


def energy_j(profile: DeviceProfile, seconds: float, busy_s: Mapping[str, float]) -> float:
    """Joules of ``seconds``, in which each processor is active for ``busy_s`` and idle for the rest."""
    total = profile.base_w * seconds
    for processor, state in (("npu", profile.npu), ("cpu", profile.cpu)):
        active = min(busy_s.get(processor, 0.0), seconds)
        total += state.active_w * active + state.idle_w * (seconds - active)
    return total
