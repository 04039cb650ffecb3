"""Finds the slides and patches of a run."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.patches import PATCH_SUFFIXES
from sshr_deploy.runtime.progress import InputResult, Kind
from sshr_deploy.runtime.slides import SLIDE_SUFFIXES, companions

_FINGERPRINT_BYTES = 1 << 20


@dataclass(frozen=True)
class Input:
    """One file to process, and the folder of its results relative to the run's output."""

    path: Path
    kind: Kind
    relative: Path


def find_inputs(source: Path, out: Path) -> tuple[list[Input], list[InputResult]]:
    """The inputs at or below `source`, by name, and a failure for each folder that cannot be read.

    Results are not searched: `out` may lie inside `source`. Hidden files are skipped, and so are
    files and folders that are part of a slide beside them.

    Raises:
        UsageError: `source` is missing, of an unknown kind, or holds nothing to process.
    """
    if not source.exists():
        raise UsageError(
            f"{source} does not exist; give a slide, a patch image or a folder of them"
        )
    if not source.is_dir():
        kind = kind_of(source)
        if kind is None:
            raise UsageError(
                f"{source} is neither a slide nor a patch image; known are {_known_suffixes()}"
            )
        return [Input(source, kind, Path(source.name))], []
    found, failures = _walk(source, out)
    if not found and not failures:
        raise UsageError(f"{source} holds no slide or patch image; known are {_known_suffixes()}")
    return found, failures


def kind_of(path: Path) -> Kind | None:
    """What a file is by its suffix; None for neither."""
    suffix = path.suffix.lower()
    if suffix in PATCH_SUFFIXES:
        return "patch"
    return "slide" if suffix in SLIDE_SUFFIXES else None


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's size, first and last MiB: tells files apart without reading gigabytes.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "big"))
    with path.open("rb") as file:
        digest.update(file.read(_FINGERPRINT_BYTES))
        file.seek(max(0, size - _FINGERPRINT_BYTES))
        digest.update(file.read(_FINGERPRINT_BYTES))
    return digest.hexdigest()


def _walk(source: Path, out: Path) -> tuple[list[Input], list[InputResult]]:
    found: list[Input] = []
    failures: list[InputResult] = []

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename or source)
        failures.append(
            InputResult(folder, None, "failed", f"{folder} cannot be read: {error.strerror}")
        )

    results = out.resolve()
    parts_of_slides: set[Path] = set()
    for name, folders, files in os.walk(source, onerror=unreadable):
        here = [Path(name) / file for file in sorted(files) if not file.startswith(".")]
        slides = [path for path in here if kind_of(path) == "slide"]
        parts_of_slides.update(*(companions(path) for path in slides))
        folders[:] = sorted(
            f
            for f in folders
            if not f.startswith(".")
            and Path(name, f).resolve() != results
            and Path(name, f) not in parts_of_slides
        )
        for path in here:
            kind = kind_of(path)
            if kind is not None and path not in parts_of_slides:
                found.append(Input(path, kind, path.relative_to(source)))
    return found, failures


def _known_suffixes() -> str:
    return " ".join(sorted(SLIDE_SUFFIXES | PATCH_SUFFIXES))
