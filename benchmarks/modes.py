"""Seamless against reference mode on a slide: work of the network, wall time, seams.

    python -m sshr_deploy.benchmarks.modes BUNDLE SLIDE --json FILE

Whole runs of both modes in turn by the same engine, from opening the slide to the last file. Work
is counted: the pixels of each input that the engine was given, at the operations that the bundle
states for a patch or field. Seams are counted in the masks, at multiples of 224 px.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sshr_deploy.atomic import write_json
from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.geometry import PATCH_PX
from sshr_deploy.runtime.contract import CamBatch, K, MaskBatch, MaskRule, Session
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kinds import default_batch
from sshr_deploy.runtime.evaluation.seams import Seams
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.reporting import TileCounter, no_tiles
from sshr_deploy.runtime.pipeline.run import Run
from sshr_deploy.runtime.pipeline.sessions import Sessions
from sshr_deploy.runtime.pipeline.work import prepare_run
from sshr_deploy.runtime.results.file_names import MASK_NAME
from sshr_deploy.runtime.settings import InferSettings, Mode

Sizes = Counter[tuple[int, int]]
"""Inputs by height and width, in px."""


class Watched:
    """A session that counts the inputs it is given."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.sizes: Sizes = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def stream(
        self, batches: Iterable[tuple[K, NDArray[np.uint8]]], rule: MaskRule | None = None
    ) -> Iterator[tuple[K, CamBatch | MaskBatch]]:
        """See `Session.stream`."""

        def counted() -> Iterator[tuple[K, NDArray[np.uint8]]]:
            for key, pixels in batches:
                height, width = pixels.shape[1:3]
                self.sizes[height, width] += len(pixels)
                yield key, pixels

        results: Iterator[tuple[K, CamBatch | MaskBatch]]
        results = self._session.stream(counted(), rule)
        return results


def measure(
    bundle: Path,
    slide: Path,
    *,
    engine: str = "onnx-cpu",
    threads: int | None = None,
    rounds: int = 1,
    mpp_um: float | None = None,
) -> dict[str, Any]:
    """Work, seconds and seams of both modes, and the ratios of seamless over reference.

    Raises:
        BundleError: the bundle has no graphs for fields.
        InputError: the slide cannot be read.
    """
    environment = describe_environment()
    loaded = load_bundle(bundle)
    use_threads(choose_threads(loaded.manifest.model.width, threads))
    with Sessions(loaded, lambda view: open_session(view, engine)) as sessions:
        modes = {
            mode: _Way(loaded, sessions.of_slides(mode), slide, mode, mpp_um)
            for mode in (Mode.REFERENCE, Mode.SEAMLESS)
        }
        for _ in range(rounds):
            for way in modes.values():
                way.run()
        rows = {mode.value: way.row() for mode, way in modes.items()}
        info = sessions.patches.info
    one, other = rows["seamless"], rows["reference"]
    return {
        "benchmark": "modes",
        "environment": environment,
        "slide": slide.name,
        "bundle": {"width": loaded.manifest.model.width},
        "engine": {"engine": info.engine, "threads": info.threads},
        "modes": rows,
        "seamless_over_reference": {
            "gflop_per_mm2": one["gflop_per_mm2"] / other["gflop_per_mm2"],
            "seconds": one["median_s"] / other["median_s"],
        },
    }


class _Way:
    """One mode on one slide."""

    def __init__(
        self, bundle: Bundle, session: Session, slide: Path, mode: Mode, mpp_um: float | None
    ) -> None:
        self.bundle, self.slide = bundle, slide
        self.session = Watched(session)
        batch = default_batch(session.info.engine)
        self.settings = InferSettings(mode, mpp_um, batch=batch, overwrite=True)
        self.seconds: list[float] = []
        self.facts: dict[str, Any] = {}

    def run(self) -> None:
        sessions = Sessions.of(self.bundle, self.session)  # type: ignore[arg-type]
        context = Context(self.bundle, sessions, self.settings)
        self.session.sizes.clear()
        with tempfile.TemporaryDirectory() as folder:
            watch = Stopwatch()
            with prepare_run(self.slide, Path(folder), self.settings) as work:
                run = Run(work, context, TileCounter(no_tiles))
                (result,) = run
            self.seconds.append(watch.seconds())
            if result.error is not None:
                raise result.error
            assert result.summary is not None
            summary = result.summary.model_dump(mode="json")
            mask = tifffile.imread(Path(folder) / summary["folder"] / MASK_NAME)
        self.facts = {
            "tissue_mm2": summary["tissue_area_mm2"],
            "seam_ratio": seams_of(mask, len(summary["classes"])).ratio,
            "stages_s": summary["seconds"],
        }

    def row(self) -> dict[str, Any]:
        manifest, geometry = self.bundle.manifest, self.session.geometry
        each = manifest.model.gflop_per_patch
        if not geometry.is_patch:
            assert manifest.fields is not None
            each = manifest.fields.gflop_per_field
        pixels = sum(h * w * count for (h, w), count in self.session.sizes.items())
        gflop = each * pixels / geometry.side_px**2
        return {
            "inputs": [[*size, count] for size, count in sorted(self.session.sizes.items())],
            "pixels": pixels,
            "gflop": gflop,
            "gflop_per_mm2": gflop / self.facts["tissue_mm2"],
            "samples_s": self.seconds,
            "median_s": float(np.median(self.seconds)),
            **self.facts,
        }


def seams_of(mask: NDArray[np.uint8], num_classes: int) -> Seams:
    """At multiples of 224 px, where tiles of reference mode end."""
    rows, columns = (range(PATCH_PX, side, PATCH_PX) for side in mask.shape)
    return Seams.of_mask(mask, num_classes, rows=rows, columns=columns)


def main() -> None:
    """Measure, print the ratios, and write everything where `--json` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--engine", default="onnx-cpu", help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads of the engine")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each mode, in turn")
    parser.add_argument("--mpp", type=float, help="pixel size of a slide that states none, in um")
    parser.add_argument("--json", type=Path, help="file for everything")
    args = parser.parse_args()
    report = measure(
        args.bundle, args.slide, engine=args.engine, threads=args.threads, rounds=args.rounds,
        mpp_um=args.mpp,
    )  # fmt: skip
    for mode, row in report["modes"].items():
        print(mode, json.dumps(row))
    print(json.dumps(report["seamless_over_reference"]))
    if args.json is not None:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
