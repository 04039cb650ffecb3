"""What a user asks of `sshr-deploy train`, and the folder that a run writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import sshr_deploy
from sshr_deploy.atomic import check_writable, partial_name, remove_abandoned, write_json
from sshr_deploy.errors import TrainingError, UsageError, first_line
from sshr_deploy.model import FULL_WIDTH
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.machine import library_versions, processor_name
from sshr_deploy.train.dataset import TrainingPatch, fingerprint
from sshr_deploy.train.processes import Processes
from sshr_deploy.train.recipe import BatchNormMode, Recipe, recipe_fields
from sshr_deploy.train.run_checkpoint import LAST_NAME

RUN_NAME = "run.json"
_LIBRARIES = ("torch", "numpy", "pillow", "opencv-python-headless", "safetensors")
_RUNNING = "running"
_MUST_AGREE = ("profile", "recipe", "width", "training_set")


@dataclass(frozen=True)
class TrainingJob:
    """One run: data, classes, recipe and the folder of its results."""

    dataset: Path
    profile: Profile
    recipe: Recipe
    out: Path
    width: int = FULL_WIDTH
    """Channels of the first convolution."""
    init: Path | None = None
    """Initial weights; random ones without."""
    resume: bool = False
    workers: int | None = None
    """Processes that decode patches; None chooses."""


def check_job(job: TrainingJob) -> None:
    """Refuse what cannot work, before anything is read.

    Raises:
        UsageError: `out` is in the way or holds no run to resume; or batch norms that stay frozen
            at random weights.
        OutputError: nothing can be written at `out`.
    """
    holds_run = (job.out / RUN_NAME).is_file()
    if job.out.is_dir():  # of another folder than a run's, nothing but a half-written run.json goes
        remove_abandoned(job.out, "*" if holds_run else f"{RUN_NAME}.*")
    running = next(job.out.glob(f".{_RUNNING}.*"), None)
    if running is not None:
        raise UsageError(
            f"another process trains into {job.out}; wait for it or choose another --out (if it "
            f"has died, delete {running})"
        )
    if job.resume and not holds_run:
        raise UsageError(f"{job.out} holds no run to go on with; leave out --resume")
    if not job.resume and (not _is_empty(job.out)):
        advice = "add --resume to go on with it, or " if holds_run else ""
        what = "holds a run" if holds_run else "exists and is not empty"
        raise UsageError(f"{job.out} {what}; {advice}choose another --out")
    begins = not (job.out / LAST_NAME).exists()
    if job.recipe.batch_norm is BatchNormMode.FROZEN and job.init is None and begins:
        raise UsageError(
            f"recipe {job.recipe.name} keeps batch norms frozen, which cannot learn from random "
            "weights: give trained ones with --init, or choose --recipe scratch"
        )
    check_writable(job.out / RUN_NAME)


def describe_run(job: TrainingJob, patches: Sequence[TrainingPatch]) -> dict[str, Any]:
    """What a run is, as JSON: everything that a resumed run has to have in common, and versions."""
    return {
        "profile": job.profile.model_dump(mode="json"),
        "recipe": recipe_fields(job.recipe),
        "width": job.width,
        "training_set": fingerprint(patches, job.dataset),
        "training_patches": len(patches),
        "dataset": str(job.dataset),
        "init": None if job.init is None else str(job.init),
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"sshr-deploy": sshr_deploy.__version__, **library_versions(_LIBRARIES)},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name(),
    }


@contextmanager
def begun(job: TrainingJob, description: dict[str, Any], processes: Processes) -> Iterator[None]:
    """Mark `out` as taken while the block runs; a new run's `run.json` is written first.

    Raises:
        OutputError: nothing can be written there.
    """
    if not processes.first:
        yield
        return
    if not job.resume:
        write_json(job.out / RUN_NAME, description)
    mark = job.out / partial_name(_RUNNING)
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def check_resumed(
    job: TrainingJob, description: dict[str, Any], warn: Callable[[str], None]
) -> None:
    """Pass a run to resume only if it is the one that was begun at `out`.

    `warn` is told where the end may differ from that of an undisturbed run.

    Raises:
        TrainingError: profile, recipe, width or training files are others.
    """
    path = job.out / RUN_NAME
    try:
        earlier: dict[str, Any] = json.loads(path.read_text("utf-8"))
        begins = not (job.out / LAST_NAME).exists()
        compared = (*_MUST_AGREE, "init") if begins else _MUST_AGREE
        differing = [k for k in compared if earlier[k] != description[k]]
        same_tools = all(earlier[k] == description[k] for k in ("versions", "device"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} cannot be read ({first_line(error)}); choose another --out"
        ) from error
    if differing:
        raise TrainingError(
            f"{job.out} was begun with another {' and '.join(differing).replace('_', ' ')}; "
            "resume it with the same, or choose another --out"
        )
    if not same_tools:
        warn(f"{job.out} was begun on another device or with other versions; see its {RUN_NAME}")


def checkpoint_header(description: dict[str, Any]) -> dict[str, str]:
    """The part of a run's description that its checkpoints carry, each entry as JSON."""
    header = {k: json.dumps(description[k]) for k in ("profile", "recipe", "versions")}
    return {"title": description["profile"]["title"], **header}


def _is_empty(folder: Path) -> bool:
    if not folder.exists():
        return True
    return folder.is_dir() and not any(folder.iterdir())
