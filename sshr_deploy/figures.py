"""Figures in words."""

from __future__ import annotations


def in_digits(value: float, digits: int = 3) -> str:
    """Rounded to so many digits, never as a power of ten above 1: "2380", "24.1", "0.012"."""
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text else text
