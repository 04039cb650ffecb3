"""What all contenders for a slide are given: its tiles, and the network in the forms they take."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import InputError, MissingExtraError, UsageError
from sshr_deploy.geometry import PATCH_PX
from sshr_deploy.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import INPUT_NAME, OUTPUT_NAMES
from sshr_deploy.runtime.engines.kinds import AUTO
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.runtime.masks import MIN_MAX_EPSILON, mask_rule
from sshr_deploy.runtime.pixel_sizes import GivenMpp
from sshr_deploy.runtime.settings import CPU_BATCH
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.area import choose_level
from sshr_deploy.runtime.slides.plan import plan_tiles, survey_slide
from sshr_deploy.runtime.slides.stain import check_stain


@dataclass(frozen=True)
class SlideSettings:
    """How the slide is done."""

    engine: str = AUTO
    """Ours; a name of `engines.kinds`."""
    precision: Precision = Precision.FP32
    """Ours; peers compute in FP32."""
    batch: int = CPU_BATCH
    """Tiles a call."""
    threads: int | None = None
    """Cores that each may use, and threads that compute; None for all cores, and for ours as many
    threads as it chooses itself."""
    streams: int | None = None
    """Ours, calls of the engine at the same time; None for what it chooses itself."""
    workers: int | None = None
    """Processes that read for a DataLoader; None for one a core that it may use."""
    mpp_um: float | None = None
    """Size of a level-0 pixel, where the file states none."""
    force_mpp: bool = False
    """It counts even where the file has its own."""


@dataclass(frozen=True)
class SlideJob:
    """A slide with its tiles, described in a file that contenders read."""

    file: Path
    """To be judged: label maps are kept."""
    timed_file: Path
    """To be timed: label maps are made, and not written for the judge."""
    tiles: int
    area_mm2: float
    """Of all tiles."""
    classes: int
    has_checkpoint: bool


def prepare_job(
    bundle: Bundle, slide: Path, checkpoint: Path | None, folder: Path, settings: SlideSettings
) -> SlideJob:
    """Plan the slide's tiles as reference mode does, and write job and networks into `folder`.

    Raises:
        InputError: the slide cannot be read, or has no tissue.
        UsageError: the checkpoint is not the bundle's.
        MissingExtraError: PyTorch is not installed; only with a checkpoint.
    """
    content = {**_tiles(bundle, slide, settings), **_network(bundle, settings)}
    if checkpoint is not None:
        _check_same(bundle, checkpoint)
        content |= _torchscript(bundle, checkpoint, folder)
    file, timed_file = folder / "job.json", folder / "timed.json"
    file.write_text(json.dumps({**content, "keeps_labels": True}), "utf-8")
    timed_file.write_text(json.dumps({**content, "keeps_labels": False}), "utf-8")
    tiles = len(content["places"])
    side_mm = PATCH_PX * bundle.manifest.profile.mpp_um / 1000
    classes = bundle.manifest.profile.num_classes
    area_mm2 = tiles * side_mm**2
    return SlideJob(file, timed_file, tiles, area_mm2, classes, checkpoint is not None)


def _tiles(bundle: Bundle, slide: Path, settings: SlideSettings) -> dict[str, Any]:
    target_um = bundle.manifest.profile.mpp_um
    given = GivenMpp(settings.mpp_um, settings.force_mpp)
    with open_slide(slide) as reader:
        concern_of = partial(check_stain, slide, any_stain=False)
        plan = plan_tiles(survey_slide(reader, target_um, given=given, concern_of=concern_of))
        level = choose_level(reader, plan.mpp, target_um)
        downsample = reader.level_downsamples[level]
    if not plan.tissue:
        raise InputError(f"{slide} has no tissue; give a slide that has")
    side_l0_px = PATCH_PX * plan.grid.l0_px_per_px[0]
    return {
        "slide": str(slide.absolute()),
        "places": [(tile.t_row, tile.t_column) for tile in plan.tissue],
        "corners_l0_px": [(round(tile.l0_x), round(tile.l0_y)) for tile in plan.tissue],
        "side_l0_px": round(side_l0_px),
        "level": level,
        "side_px": round(side_l0_px / downsample),
        "patch_px": PATCH_PX,
        "mpp_um": (plan.mpp.x_um, plan.mpp.y_um),
        "given_mpp_um": settings.mpp_um,
        "force_mpp": settings.force_mpp,
        "target_mpp_um": target_um,
    }


def _network(bundle: Bundle, settings: SlideSettings) -> dict[str, Any]:
    graphs = bundle.artifacts("onnx-cpu")
    graph = next((graph for graph in graphs if graph.precision == Precision.FP32), None)
    if graph is None:
        raise UsageError(f"{bundle.path} has no FP32 graph, which peers need; export one with it")
    rule = mask_rule(bundle.manifest.profile)
    cores = min(settings.threads or usable_cores(), usable_cores())
    return {
        "bundle": str(bundle.path.absolute()),
        "engine": settings.engine,
        "precision": settings.precision.value,
        "given_threads": settings.threads,
        "streams": settings.streams,
        "threads": settings.threads or cores,
        "workers": cores if settings.workers is None else settings.workers,
        "batch": settings.batch,
        "onnx": str((bundle.path / graph.file).absolute()),
        "input": INPUT_NAME,
        "outputs": OUTPUT_NAMES,
        "classes": bundle.manifest.profile.num_classes,
        "weights": rule.weights,
        "threshold": rule.threshold,
        "epsilon": MIN_MAX_EPSILON,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }


def _check_same(bundle: Bundle, checkpoint: Path) -> None:
    try:
        with checkpoint.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{checkpoint} cannot be read: {error.strerror}") from error
    if found != bundle.manifest.model.checkpoint_sha256:
        raise UsageError(
            f"{checkpoint} is not what {bundle.path} was exported from; give "
            f"{bundle.manifest.model.checkpoint_name}, or export the bundle again"
        )


def _torchscript(bundle: Bundle, checkpoint: Path, folder: Path) -> dict[str, Any]:
    try:
        from sshr_deploy.benchmarks.peers.torchscript import write_networks
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "export") from error
    files = write_networks(checkpoint, mask_rule(bundle.manifest.profile), folder)
    return {
        "checkpoint": str(checkpoint.absolute()),
        **{name: str(file) for name, file in files.items()},
    }
