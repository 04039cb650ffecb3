"""How slides look beside the tissue that a bundle's network knows, before they are segmented."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import InputError, UsageError
from sshr_deploy.runtime.doctor.report import SlideLook
from sshr_deploy.runtime.pipeline.discovery import search
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.fit import slide_fit
from sshr_deploy.runtime.slides.plan import survey_slide
from sshr_deploy.runtime.slides.stain import check_stain


def look_at_slides(source: Path, bundle: Bundle) -> tuple[SlideLook, ...]:
    """Measure each slide at or below `source`, by name; images are left out, as in `infer`.

    Raises:
        UsageError: there is no slide; or the bundle does not state what its network knows.
        BundleError: the bundle's first layer cannot be used.
    """
    if bundle.manifest.model.known_tissue is None:
        raise UsageError(
            f"{bundle.path} does not state which tissue its network knows; train or adapt the "
            "network with this release, and export it again"
        )
    found = search(source, source)
    slides = [item.path for item in found.inputs if item.kind == "slide"]
    if not slides and not found.failures:
        raise UsageError(f"{source} holds no slide; the look of images is not measured")
    failed = [SlideLook(str(end.path), None, None, end.reason) for end in found.failures]
    return (*(_look(path, bundle) for path in slides), *failed)


def _look(path: Path, bundle: Bundle) -> SlideLook:
    try:
        with open_slide(path) as reader:
            survey = survey_slide(
                reader,
                bundle.manifest.profile.mpp_um,
                concern_of=partial(check_stain, path, any_stain=False),
            )
            fit = slide_fit(bundle, reader, survey)
    except (InputError, UsageError) as error:
        return SlideLook(str(path), None, None, str(error))
    if fit is None:
        return SlideLook(str(path), None, None, "no tissue found")
    return SlideLook(str(path), fit.verdict, fit.score, fit.words)
