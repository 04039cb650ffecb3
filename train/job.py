"""A training job as `sshr-deploy train` asks for it, and the folder that its run writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sshr_deploy.atomic import (
    check_writable,
    output_errors,
    partial_name,
    remove_abandoned,
    remove_path,
    write_json,
)
from sshr_deploy.errors import TrainingError, UsageError, first_line
from sshr_deploy.model import FULL_WIDTH
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.machine.processor import library_versions, processor_name
from sshr_deploy.runtime.machine.threads import MAX_THREADS, Threads, choose_threads
from sshr_deploy.train.dataset import TrainingPatch, fingerprint
from sshr_deploy.train.history import EVENTS_NAME, METRICS_NAME
from sshr_deploy.train.recipe import BatchNormMode, Recipe, recipe_fields
from sshr_deploy.train.run_checkpoint import LAST_NAME
from sshr_deploy.version import __version__

RUN_NAME = "run.json"
_LIBRARIES = ("torch", "numpy", "pillow", "opencv-python-headless", "safetensors")
_RUNNING = "running"
_MUST_AGREE = ("profile", "recipe", "width", "training_set", "val_images")
_BEFORE_CHECKPOINT = (RUN_NAME, METRICS_NAME, EVENTS_NAME)
"""Files of a run that stopped before its first checkpoint."""


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
    threads: int | None = None
    """CPU threads; None takes those that a resumed run was begun with, or chooses them."""


def check_job(job: TrainingJob) -> None:
    """Refuse what cannot work, before anything is read.

    Raises:
        UsageError: `out` is in the way, in use or holds no run to resume; or batch norms that stay
            frozen at random weights.
    """
    for folder in ("training", "val", "test"):
        if job.out.resolve().is_relative_to((job.dataset / folder).resolve()):
            raise UsageError(f"`out` {job.out} lies in the dataset; choose another place")
    holds_run = (job.out / RUN_NAME).is_file()
    if job.out.is_dir():  # where there is no run, only what a run left that was killed at once goes
        for pattern in ("*",) if holds_run else (f"{RUN_NAME}.*", f"{_RUNNING}.*"):
            remove_abandoned(job.out, pattern)
    _refuse_if_running(job.out)
    if job.resume and not holds_run:
        raise UsageError(f"{job.out} holds no run to go on with; leave out `resume`")
    begun_anew = holds_run and _holds_no_checkpoint(job.out)
    if not job.resume and not begun_anew and not _is_empty(job.out):
        advice = "add `resume` to go on with it, or " if holds_run else ""
        what = "holds a run" if holds_run else "exists and is not empty"
        raise UsageError(f"{job.out} {what}; {advice}choose another `out`")
    begins = not (job.out / LAST_NAME).exists()
    if job.recipe.batch_norm is BatchNormMode.FROZEN and job.init is None and begins:
        raise UsageError(
            f"recipe {job.recipe.name} keeps batch norms frozen, which cannot learn from random "
            "weights: give trained ones with `init`, or choose `recipe` scratch"
        )


def describe_run(
    job: TrainingJob, patches: Sequence[TrainingPatch], val_images: int, threads: int
) -> dict[str, Any]:
    """A run as JSON: everything that a resumed run has to have in common, and versions."""
    return {
        "profile": job.profile.model_dump(mode="json"),
        "recipe": recipe_fields(job.recipe),
        "width": job.width,
        "training_set": fingerprint(patches, job.dataset),
        "training_patches": len(patches),
        "val_images": val_images,
        "dataset": str(job.dataset),
        "init": None if job.init is None else str(job.init),
        "started_utc": now_utc(),
        "versions": {"sshr-deploy": __version__, **library_versions(_LIBRARIES)},
        "threads": threads,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name(),
    }


def run_threads(job: TrainingJob, processes: int, warn: Callable[[str], None]) -> Threads:
    """Threads of each of `processes` on this machine: those that a resumed run was begun with.

    Sums come out the same bit for bit with the same number only; `warn` is told of another one.

    Raises:
        UsageError: see `choose_threads`.
    """
    chosen = choose_threads(job.width, job.threads, processes=processes)
    if not job.resume:
        return chosen
    try:
        begun = json.loads((job.out / RUN_NAME).read_text("utf-8"))["threads"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return chosen  # an older release wrote it, or `check_resumed` refuses it
    if type(begun) is not int or not 1 <= begun <= MAX_THREADS or begun == chosen.count:
        return chosen
    if job.threads is None:
        return Threads(begun, "as the run was begun")
    warn(
        f"{job.out} was begun with {begun} CPU threads: with {chosen.count} its end may differ in "
        "the last digits from that of an undisturbed run"
    )
    return chosen


@contextmanager
def taken(out: Path) -> Iterator[None]:
    """Mark the folder of a run as taken by this process while the block runs.

    Folders that had to be made for it are gone afterwards where nothing was written into them.

    Raises:
        UsageError: another process has taken it.
        OutputError: nothing can be written there.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    check_writable(out / RUN_NAME)
    mark = out / partial_name(_RUNNING)
    with output_errors(mark):
        mark.touch()
    try:
        _refuse_if_running(out, but=mark)
        yield
    finally:
        mark.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty
            for folder in made:
                folder.rmdir()


def _refuse_if_running(out: Path, but: Path | None = None) -> None:
    for mark in out.glob(f".{_RUNNING}.*"):
        if mark != but:
            raise UsageError(
                f"another process trains into {out}; wait for it or choose another `out` (if it "
                f"has died, delete {mark})"
            )


def begin_run(job: TrainingJob, description: dict[str, Any]) -> None:
    """Write `run.json`, once everything else is ready; a resumed run keeps the one it has.

    What an earlier run left that had no checkpoint goes.

    Raises:
        OutputError: it cannot be written.
    """
    if not job.resume:
        for name in (METRICS_NAME, EVENTS_NAME):
            with output_errors(job.out / name), suppress(FileNotFoundError):
                remove_path(job.out / name)
        write_json(job.out / RUN_NAME, description)


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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(
            f"{path} cannot be read ({first_line(error)}); choose another `out`"
        ) from error
    if differing:
        anew = "leave out `resume` to begin it anew (it has no checkpoint yet)"
        raise TrainingError(
            f"{job.out} was begun with another {' and '.join(differing).replace('_', ' ')}; "
            f"resume it with the same, or {anew if begins else 'choose another `out`'}"
        )
    if not same_tools:
        warn(f"{job.out} was begun on another device or with other versions; see its {RUN_NAME}")


def checkpoint_header(description: dict[str, Any]) -> dict[str, str]:
    """The part of a run's description that its checkpoints carry, each entry as JSON."""
    header = {k: json.dumps(description[k]) for k in ("profile", "recipe", "versions")}
    return {"title": description["profile"]["title"], **header}


def _holds_no_checkpoint(out: Path) -> bool:
    """Whether a run stopped in `out` before its first checkpoint, and nothing else is there."""
    if not {path.name for path in out.iterdir()} <= set(_BEFORE_CHECKPOINT):
        return False
    try:
        content = json.loads((out / RUN_NAME).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and set(_MUST_AGREE) <= set(content)  # `infer` has its own


def _is_empty(folder: Path) -> bool:
    if not folder.exists():
        return True
    return folder.is_dir() and not any(folder.iterdir())
