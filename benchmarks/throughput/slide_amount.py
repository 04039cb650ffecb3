"""How much work a slide is for the network: what slides an hour are told for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import UsageError
from sshr_deploy.geometry import Geometry
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.planning import plan_units
from sshr_deploy.runtime.pipeline.sessions import Sessions
from sshr_deploy.runtime.settings import InferSettings, Mode
from sshr_deploy.runtime.slides import open_slide


@dataclass(frozen=True)
class SlideAmount:
    """A slide as inputs of the network."""

    about: str
    """"150 mm2 of tissue", or the name of a slide."""
    inputs: float
    """Patches, or fields of the full size that take as long as its own."""
    mm2: float
    """Of tissue that they cover."""

    @property
    def input_mm2(self) -> float:
        """That an input covers, on average."""
        return self.mm2 / self.inputs


Amount = Callable[[Session], SlideAmount | None]
"""The slide that slides an hour are told for, as inputs of a session; None where none is stated."""


def input_mm2(geometry: Geometry, mpp_um: float) -> float:
    """Area of what is kept of an input, whose pixels are of `mpp_um`."""
    return (geometry.core_px * mpp_um / 1000) ** 2


def stated_amount(bundle: Bundle, tissue_mm2: float | None, slide: Path | None) -> Amount:
    """As a user states it: by its tissue, or as a file; or not at all."""
    if slide is not None:
        return partial(amount_of_slide, slide, bundle)
    if tissue_mm2 is not None:
        found = amount_of_mm2(tissue_mm2, bundle)
        return lambda _: found
    return lambda _: None


def amount_of_mm2(tissue_mm2: float, bundle: Bundle) -> SlideAmount:
    """A slide with so much tissue, all of which is in inputs that are full of it."""
    inputs = tissue_mm2 / input_mm2(bundle.geometry, bundle.manifest.profile.mpp_um)
    return SlideAmount(f"{tissue_mm2:g} mm2 of tissue", inputs, tissue_mm2)


def amount_of_slide(path: Path, bundle: Bundle, session: Session) -> SlideAmount:
    """A slide as a run would plan it.

    Raises:
        InputError: it cannot be read.
        UsageError: it has no tissue.
    """
    mode = Mode.REFERENCE if session.geometry.is_patch else Mode.SEAMLESS
    context = Context(bundle, Sessions.of(bundle, session), InferSettings(mode))
    with open_slide(path) as reader:
        units = plan_units(reader, path, context, None)
    if not units.places:
        raise UsageError(f"{path} has no tissue; give another slide")
    inputs = sum(map(units.input_px, units.places)) / session.geometry.side_px**2
    pixel_mm2 = (units.plan.grid.mpp_um / 1000) ** 2
    return SlideAmount(path.name, inputs, len(units.places) * units.kept_px * pixel_mm2)
