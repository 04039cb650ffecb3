"""Reasons to look at a slide before its result is used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sshr_deploy.bundle import Bundle
from sshr_deploy.runtime.results.findings import SlideClass, SlideWarning
from sshr_deploy.runtime.slides import SlideReader
from sshr_deploy.runtime.slides.fit import Fit, patches_fit, sample_patches
from sshr_deploy.runtime.slides.plan import SlideSurvey
from sshr_deploy.runtime.slides.quality import PALE_OD, Quality, quality_of

_BLURRED_SHARE = 0.25
"""Of the judged patches: four of sixteen. A fold or a smear blurs fewer."""
_MIN_JUDGED = 4
_ONE_CLASS_SHARE = 0.995
_BORDER_UM = 100.0
"""Shorter is a few cells, or dirt."""


@dataclass(frozen=True)
class SlideChecks:
    """Measures of a slide that were taken before it is computed."""

    concern: str | None
    """Against its being H&E."""
    fit: Fit | None
    quality: Quality

    def warnings(self, classes: Sequence[SlideClass]) -> tuple[SlideWarning, ...]:
        """Warnings, once its classes are known too."""
        return tuple(self._found(classes))

    def _found(self, classes: Sequence[SlideClass]) -> Iterator[SlideWarning]:
        quality = self.quality
        if self.concern is not None:
            yield SlideWarning(code="stain", text=f"this may be no H&E: {self.concern}")
        elif quality.green_od is not None and quality.green_od < PALE_OD:
            text = (
                f"hardly stained: optical density {quality.green_od / math.log(10):.2f} in green, "
                "H&E has 0.2 and more"
            )
            yield SlideWarning(code="stain", text=text)
        if self.fit is not None and self.fit.verdict == "far":
            yield SlideWarning(code="unlike", text=self.fit.words)
        if quality.judged >= _MIN_JUDGED and quality.blurred >= _BLURRED_SHARE * quality.judged:
            text = (
                f"out of focus: {quality.blurred} of {quality.judged} places in its tissue; "
                "scan it again, or leave these places out"
            )
            yield SlideWarning(code="focus", text=text)
        largest = max(classes, key=lambda entry: entry.share)
        if len(classes) > 1 and largest.share >= _ONE_CLASS_SHARE:
            text = f"one class only: {largest.name} is {largest.share:.1%} of its tissue"
            yield SlideWarning(code="one-class", text=text)
        if quality.border_um >= _BORDER_UM:
            text = (
                f"tissue is cut off: it reaches the edge of the scan along "
                f"{quality.border_um / 1000:.1f} mm"
            )
            yield SlideWarning(code="border", text=text)


def check_slide(bundle: Bundle, reader: SlideReader, survey: SlideSurvey) -> SlideChecks:
    """Measure an open slide.

    Raises:
        BundleError: the first layer of its network cannot be read.
        InputError: the file is damaged.
    """
    patches = sample_patches(reader, survey)
    fit = patches_fit(bundle, patches, survey.grid.mpp_um)
    return SlideChecks(survey.concern, fit, quality_of(survey, patches))
