"""Slides: opening, pixel sizes and pixels at a wanted size."""

from __future__ import annotations

from sshr_deploy.runtime.slides.area import choose_level, read_area
from sshr_deploy.runtime.slides.mpp import Mpp, check_mpp, resolve_mpp
from sshr_deploy.runtime.slides.opening import SLIDE_SUFFIXES, companions, open_slide
from sshr_deploy.runtime.slides.reader import SlideReader

__all__ = [
    "SLIDE_SUFFIXES",
    "Mpp",
    "SlideReader",
    "check_mpp",
    "choose_level",
    "companions",
    "open_slide",
    "read_area",
    "resolve_mpp",
]
