"""Runs the gate: all its figures, and whether they are within their limits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from sshr_deploy.benchmarks.gate.counting import Finding
from sshr_deploy.benchmarks.gate.masks import check_masks
from sshr_deploy.benchmarks.gate.reading import check_reading
from sshr_deploy.benchmarks.gate.stitching import check_stitching
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.profiles import load_profile

_SLIDE = Path("demo/data/CMU-1-Small-Region.svs")
_PROFILE = "bcss"


def check_all(slide: Path) -> Iterator[Finding]:
    """Every figure of the gate.

    Raises:
        InputError: the slide cannot be read.
        SshrDeployError: a result differs from that of its plain version.
    """
    profile = load_profile(_PROFILE)
    return chain(
        check_masks(profile), check_reading(slide, profile), check_stitching(slide, profile)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each figure; exit code 1 where one is above its limit, or nil."""
    parser = argparse.ArgumentParser(
        prog="python -m sshr_deploy.benchmarks.gate",
        description="Counted operations and ratios of processor time, each with its limit.",
    )
    parser.add_argument("slide", nargs="?", type=Path, default=_SLIDE, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the figures")
    options = parser.parse_args(arguments)
    broken = 0
    try:
        with Recorder("gate", None, {"slide": options.slide.name}, options.json) as recorder:
            for found in check_all(options.slide):
                recorder.row(_row(found))
                broken += not found.held
                print(
                    f"{'ok  ' if found.held else 'FAIL'}  {found.name}: {found.value:.3g} "
                    f"{found.unit}, at most {found.limit:g}"
                )
    except SshrDeployError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 1
    if broken:
        print(f"gate: {broken} of its figures are nil or above their limits", file=sys.stderr)
    return 1 if broken else 0


def _row(found: Finding) -> Row:
    counted = found.value > 0
    return Row(
        name=found.name,
        unit=found.unit,
        better="lower",
        samples=(found.value,) if counted else (),
        not_measured=None if counted else "nothing was counted",
        facts={"limit": found.limit, "held": found.held},
    )
