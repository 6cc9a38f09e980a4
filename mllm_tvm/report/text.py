"""Figures as text."""

from __future__ import annotations


def speed(tokens_per_s: float) -> str:
    """Tokens a second, with a decimal where it says something."""
    return f"{tokens_per_s:.0f}" if tokens_per_s >= 100 else f"{tokens_per_s:.1f}"
