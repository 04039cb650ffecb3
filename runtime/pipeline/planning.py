"""What of a slide is to be computed, in which units."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.units import FieldUnits, TileUnits, Units
from sshr_deploy.runtime.slides import SlideReader
from sshr_deploy.runtime.slides.plan import plan_fields, plan_tiles, survey_slide
from sshr_deploy.runtime.slides.stain import check_stain


def plan_units(
    reader: SlideReader,
    path: Path,
    context: Context,
    place: Path | None,
    check_stop: Callable[[], None] = lambda: None,
) -> Units:
    """Find the pixel size and the tissue of an open slide, and its tiles or fields.

    Args:
        reader: an open slide.
        path: the slide.
        context: the session's inputs decide whether it is cut into tiles or fields.
        place: of the slide among the inputs, for its pixel size; None for its name.
        check_stop: called often; what it raises ends it.

    Raises:
        InputError: the slide cannot be read, its pixel size is not known (MissingMppError), or it
            is plainly not H&E.
    """
    profile, settings = context.profile, context.settings
    session = context.sessions.of_slides(context.mode)
    survey = survey_slide(
        reader,
        profile.mpp_um,
        given=settings.mpp_of(place or Path(path.name)),
        tissue=settings.tissue,
        concern_of=partial(check_stain, path, any_stain=settings.any_stain),
        check_stop=check_stop,
    )
    if session.geometry.is_patch:
        return TileUnits(plan_tiles(survey), profile)
    fields = plan_fields(survey, session.geometry, any_side=session.any_side)
    return FieldUnits(fields, profile)
