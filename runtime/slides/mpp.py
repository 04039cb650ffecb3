"""How large a pixel is, and who says so."""

from __future__ import annotations

from dataclasses import dataclass

from sshr_deploy.errors import MissingMppError, UsageError
from sshr_deploy.runtime.pixel_sizes import FROM_OPTION, MAX_MPP_UM, MIN_MPP_UM, is_pixel_size
from sshr_deploy.runtime.slides.reader import SlideReader

MAX_ANISOTROPY = 1.10
"""Scanners' x and y pixel sizes differ by well under 1 %; more is a broken header."""


@dataclass(frozen=True)
class Mpp:
    """Size of one level-0 pixel in um, and where it came from."""

    x_um: float
    y_um: float
    source: str
    """`file`, `--mpp (the file has none)`, `--mpp-table (forced)`, ..."""


def resolve_mpp(
    reader: SlideReader, mpp_um: float | None, *, force: bool = False, source: str = FROM_OPTION
) -> Mpp:
    """The pixel size to compute with: the file's own if it is plausible, else `mpp_um`.

    Args:
        reader: an open slide.
        mpp_um: given by the user, in um per level-0 pixel, or None.
        force: use `mpp_um` even where the file has a plausible value.
        source: of `mpp_um`, for `Mpp.source`.

    Raises:
        UsageError: `mpp_um` is not between 0.05 and 80 um, or `force` without it.
        MissingMppError: the file has no plausible value and there is no `mpp_um`.
    """
    check_mpp(mpp_um, force=force)
    if force and mpp_um is not None:
        return Mpp(mpp_um, mpp_um, f"{source} (forced)")
    stated = reader.file_mpp_um
    if stated is not None and is_plausible(stated):
        return Mpp(*stated, "file")
    if mpp_um is not None:
        why = "the file has none" if stated is None else f"the file says {_show(stated)}"
        return Mpp(mpp_um, mpp_um, f"{source} ({why})")
    problem = (
        "does not say how large its pixels are"
        if stated is None
        else f"says its pixels are {_show(stated)}, which cannot be right for a slide"
    )
    objective = reader.file_magnification
    stated_too = "" if objective is None else f" (the file says it is a {objective:g}x scan)"
    raise MissingMppError(
        f"{reader.path} {problem}: look it up in the scanner's settings or its report"
        f"{stated_too}, and give it in um per pixel with `mpp` or a row of `mpp_table`"
    )


def check_mpp(mpp_um: float | None, *, force: bool) -> None:
    """Refuse a user's pixel size that no slide can have, before any slide is opened.

    Raises:
        UsageError: `mpp_um` is not between 0.05 and 80 um, or `force` without it.
    """
    if mpp_um is not None and not is_pixel_size(mpp_um):
        raise UsageError(
            f"`mpp` {mpp_um:g} is no pixel size of a slide: "
            f"give um per pixel, {MIN_MPP_UM:g} to {MAX_MPP_UM:g}"
        )
    if force and mpp_um is None:
        raise UsageError("`force_mpp` needs the pixel size: give `mpp` too")


def is_plausible(mpp_um: tuple[float, float]) -> bool:
    """Whether a scanner can have written (x, y) as the pixel size of a scan or an overview."""
    x, y = mpp_um
    return is_pixel_size(x) and is_pixel_size(y) and max(x, y) <= MAX_ANISOTROPY * min(x, y)


def _show(mpp_um: tuple[float, float]) -> str:
    return f"{mpp_um[0]:.4g} x {mpp_um[1]:.4g} um"
