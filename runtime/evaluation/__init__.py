"""Evaluation of a network against label maps; whatever runs it is a `Session`."""

from __future__ import annotations

from enum import StrEnum


class LargeImages(StrEnum):
    """What becomes of an image with a side above 1.5 patch sides (336 px)."""

    TILES = "tiles"
    """Cut evenly into parts of about a patch's size, each treated as published."""
    WHOLE = "whole"
    """Shrunk to one patch, as published."""
