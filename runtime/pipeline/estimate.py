"""How long a run would take, and how much disk: measured on parts of its own inputs.

A few slides are done for real, but for a part of their tissue, and one of them for none of it; so
are a few images. What that takes, in time and bytes, gives rates for reading, for the engine, and
for writing glass and tissue. The engine is the bottleneck or the reading is; planning and writing
run beside it, except for the first slide's planning and the last one's writing. On a processor what
runs beside the engine takes cores from it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.runtime.engines.kind import inputs_for
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.flow import Flow
from sshr_deploy.runtime.pipeline.images import predict_images
from sshr_deploy.runtime.pipeline.ledger import Ledger
from sshr_deploy.runtime.pipeline.patch import finish_patch, read_patch
from sshr_deploy.runtime.pipeline.preview import Preview
from sshr_deploy.runtime.pipeline.readers import Readers
from sshr_deploy.runtime.pipeline.reporting import TileCounter, no_tiles
from sshr_deploy.runtime.pipeline.slide import SlideWork, begin_slide
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.pipeline.units import Units
from sshr_deploy.runtime.results.findings import Effort
from sshr_deploy.runtime.settings import Mode

SAMPLED_SLIDES = 3
"""Of as many formats as there are."""
_ENOUGH_S = 60.0
"""No other slide is begun after that."""
_BATCHES = 3
"""Of a slide's units."""
_SLIDES_ON_DISK = 4
"""Whose units may wait to be written at a time."""
_SMALL_BYTES = 20_000
"""`summary.json` and an input's share of the files about the run."""


@dataclass(frozen=True)
class Estimate:
    """Time and disk of a run."""

    seconds: float
    """Once the engine is open."""
    result_bytes: int
    peak_bytes: int
    """With what is on the disk only while slides are under way."""
    by_input_s: dict[Path, float]
    """Time at the bottleneck."""
    sampled: int
    """Slides and images that were done in part or whole to measure it."""
    sampling_s: float


@dataclass(frozen=True)
class _Sample:
    input_px: float
    mask_px: int
    busy_s: dict[str, float]
    bytes: int

    @property
    def finish_s(self) -> float:
        return self.busy_s.get("labels", 0.0) + self.busy_s.get("write", 0.0)


@dataclass(frozen=True)
class _Rates:
    """Seconds and bytes for each pixel that the network takes, and of glass for each of a mask."""

    read_s: float
    engine_s: float
    tissue_s: float
    glass_s: float
    tissue_bytes: float
    glass_bytes: float

    def finish_s(self, preview: Preview) -> float:
        assert preview.amount is not None
        return self.glass_s * preview.amount.mask_px + self.tissue_s * preview.amount.input_px

    def result_bytes(self, preview: Preview) -> float:
        assert preview.amount is not None
        glass = self.glass_bytes * preview.amount.mask_px
        return _SMALL_BYTES + glass + self.tissue_bytes * preview.amount.input_px


def estimate_run(inputs: Sequence[Preview], context: Context) -> Estimate:
    """Measure what there is to do; works in a temporary folder of the system.

    Raises:
        SessionError: the engine fails.
        OutputError: the temporary folder cannot be written.
        InputError: a slide or an image that is measured turns out to be damaged.
    """
    watch = Stopwatch()
    todo = [preview for preview in inputs if preview.fate == "compute"]
    slides = [preview for preview in todo if preview.kind == "slide"]
    images = [preview for preview in todo if preview.kind == "patch"]
    with tempfile.TemporaryDirectory(prefix="sshr-deploy-") as folder:
        on_slides = _estimated_slides(slides, context, Path(folder))
        on_images = _estimated_images(images, context, Path(folder))
    parts = (on_slides, on_images)
    return Estimate(
        sum(part.seconds for part in parts),
        sum(part.result_bytes for part in parts),
        on_slides.peak_bytes + on_images.result_bytes,
        on_slides.by_input_s | on_images.by_input_s,
        sum(part.sampled for part in parts),
        watch.seconds(),
    )


def _nothing() -> Estimate:
    return Estimate(0.0, 0, 0, {}, 0, 0.0)


def _estimated_slides(slides: Sequence[Preview], context: Context, folder: Path) -> Estimate:
    if not slides:
        return _nothing()
    chosen = _chosen_slides(slides)
    samples = _sampled(chosen, context, folder)
    rates = _rates(samples)
    cores = usable_cores()
    readers = context.settings.readers or cores
    by_input: dict[Path, float] = {}
    for preview in slides:
        assert preview.amount is not None
        px = preview.amount.input_px
        by_input[preview.path] = px * max(rates.engine_s, rates.read_s / readers)
    plans = [preview.plan_s for preview in slides]
    finishes = [rates.finish_s(preview) for preview in slides]
    beside_s = sum(plans[1:]) + sum(finishes[:-1])
    on_processor = context.engine("slide").engine.endswith("-cpu") or (
        context.engine("slide").threads is not None
    )
    bottleneck_s = sum(by_input.values()) + (beside_s / cores if on_processor else 0.0)
    seconds = plans[0] + max(bottleneck_s, sum(plans[1:]), sum(finishes[:-1])) + finishes[-1]
    results = int(sum(map(rates.result_bytes, slides)))
    kept = sorted((p.amount.kept_bytes for p in slides if p.amount is not None), reverse=True)
    peak = results + sum(kept[:_SLIDES_ON_DISK])
    return Estimate(seconds, results, peak, by_input, len(samples) - 1, 0.0)


def _chosen_slides(slides: Sequence[Preview]) -> list[Preview]:
    """The largest of each format, and others by size."""
    by_size = sorted(slides, key=_input_px, reverse=True)
    first = list({preview.reader: preview for preview in reversed(by_size)}.values())
    rest = [preview for preview in by_size if preview not in first]
    return (first[::-1] + rest)[:SAMPLED_SLIDES]


def _input_px(preview: Preview) -> float:
    assert preview.amount is not None
    return preview.amount.input_px


def _sampled(slides: Sequence[Preview], context: Context, folder: Path) -> list[_Sample]:
    """Do parts of slides: no tissue of the first, then of each as many units as were asked for."""
    session = context.sessions.of_slides(context.mode)
    batch = inputs_for(context.settings.batch, session.geometry)
    watch = Stopwatch()
    # Engines take long for their first batch: the first slide's part is done twice.
    steps = [
        (slides[0], _BATCHES * batch),
        (slides[0], 0),
        *((s, _BATCHES * batch) for s in slides),
    ]
    left = iter(enumerate(steps))
    amounts: dict[int, float] = {}

    def take() -> tuple[int, tuple[Preview, int]] | None:
        step = next(left, None)
        return None if step is not None and step[0] > 2 and watch.seconds() > _ENOUGH_S else step

    def plan(step: tuple[int, tuple[Preview, int]], check_stop: object) -> SlideWork:
        number, (preview, count) = step
        assert preview.item is not None and callable(check_stop)
        place = folder / str(number)
        place.mkdir()

        def shorten(units: Units) -> Units:
            first = max(0, (len(units.places) - count) // 2)
            part = units.part(first, count)
            amounts[number] = sum(map(part.input_px, part.places))
            return part

        return begin_slide(
            preview.path, place, context, "", Ledger(), check_stop, preview.item.relative, shorten
        )

    samples: list[_Sample] = []
    with Readers(context.settings.readers) as readers:
        flow = Flow[tuple[int, tuple[Preview, int]], SlideWork](
            take,
            plan,
            session,
            mask_rule(context.profile) if session.geometry.is_patch else None,
            batch=batch,
            readers=readers,
            ledger=Ledger(),
            reporter=TileCounter(no_tiles),
            stop=StopRequest(),
        )
        with flow, closing(iter(flow)) as ended:
            for (number, _), work in ended:
                if isinstance(work, Exception):
                    raise work
                if number > 0:
                    result = work.result()
                    px = result.mask.width_px * result.mask.height_px
                    size = sum(result.files.values())
                    effort: Effort = result.effort
                    samples.append(_Sample(amounts[number], px, effort.busy_s, size))
    return samples


def _rates(samples: Sequence[_Sample]) -> _Rates:
    glass, tissue = samples[0], samples[1:]
    input_px = max(1.0, sum(sample.input_px for sample in tissue))
    glass_s, glass_bytes = (
        value / max(1, glass.mask_px) for value in (glass.finish_s, float(glass.bytes))
    )
    mask_px = sum(sample.mask_px for sample in tissue)
    finish_s, size = sum(s.finish_s for s in tissue), sum(s.bytes for s in tissue)

    def busy(*stages: str) -> float:
        return sum(sample.busy_s.get(stage, 0.0) for sample in tissue for stage in stages)

    return _Rates(
        read_s=busy("read") / input_px,
        engine_s=busy("infer", "keep") / input_px,
        tissue_s=max(0.0, finish_s - glass_s * mask_px) / input_px,
        glass_s=glass_s,
        tissue_bytes=max(0.0, size - glass_bytes * mask_px) / input_px,
        glass_bytes=glass_bytes,
    )


def _estimated_images(images: Sequence[Preview], context: Context, folder: Path) -> Estimate:
    if not images:
        return _nothing()
    chosen = _chosen_images(images, context.settings.batch)
    _computed(chosen[:1], context, folder)  # engines take long for their first batch
    seconds, size = _computed(chosen, context, folder)
    px = sum(map(_input_px, chosen))
    by_input = {p.path: p.plan_s + seconds * _input_px(p) / px for p in images}
    results = int(sum(_SMALL_BYTES + size * _input_px(p) / px for p in images))
    return Estimate(sum(by_input.values()), results, results, by_input, len(chosen), 0.0)


def _chosen_images(images: Sequence[Preview], batch: int) -> list[Preview]:
    """About two batches of images of one pixel size, spread over all sizes."""
    sizes = [preview.mpp for preview in images]
    alike = [p for p in images if p.mpp == max(sizes, key=sizes.count)]
    by_size = sorted(alike, key=_input_px)
    count = min(len(alike), 2 * batch)
    return [by_size[(2 * i + 1) * len(by_size) // (2 * count)] for i in range(count)]


def _computed(images: Sequence[Preview], context: Context, folder: Path) -> tuple[float, int]:
    """Seconds that images take once they are read, and bytes of their results."""
    profile, settings, sessions = context.profile, context.settings, context.sessions
    jobs = [
        read_patch(p.path, folder, profile, settings, p.item.relative)
        for p in images
        if p.item is not None
    ]
    predictions = predict_images(
        ((job, job.rgb) for job in jobs),
        sessions.patches,
        profile,
        settings.large,
        settings.batch,
        fields=(lambda: sessions.fields) if context.mode is Mode.SEAMLESS else None,
        mpp_um=jobs[0].given.um,
    )
    watch, size = Stopwatch(), 0
    for job, prediction in predictions:
        size += sum(finish_patch(job, prediction, profile, settings).files.values())
    return watch.seconds(), size
