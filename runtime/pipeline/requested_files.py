"""The result files of a slide that are written where they are asked for."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.outputs import PROBABILITIES_NAME, Outputs
from sshr_deploy.runtime.slides.grid import TileGrid
from sshr_deploy.runtime.writers.bands import ProbSink
from sshr_deploy.runtime.writers.probabilities import probability_sink


def requested_sinks(
    stack: ExitStack,
    folder: Path,
    slide: Path,
    grid: TileGrid,
    profile: Profile,
    outputs: Outputs,
) -> list[ProbSink]:
    """Sinks of these files, which `stack` finishes once they have all bands.

    Raises:
        OutputError: one of them cannot be written.
    """
    size_px = grid.width_px, grid.height_px
    sinks: list[ProbSink] = []
    if outputs.probabilities:
        sinks.append(
            stack.enter_context(
                probability_sink(
                    folder / PROBABILITIES_NAME,
                    size_px,
                    profile=profile,
                    mask_mpp_um=grid.mpp_um,
                    name=slide.name,
                )
            )
        )
    return sinks
