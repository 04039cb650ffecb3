"""Finds the slides and patches of a run."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.errors import InputError, UsageError, counted
from sshr_deploy.runtime.patches import PATCH_SUFFIXES
from sshr_deploy.runtime.results.file_names import RECORD_NAME, RESULT_NAMES, RUN_NAME, TABLE_NAME
from sshr_deploy.runtime.results.findings import InputResult, Kind
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import SLIDE_SUFFIXES, companions

_FINGERPRINT_BYTES = 1 << 20
_SHOWN_SUFFIXES = 8
_NO_FILE = "is a pipe or device, not a file; give a slide or a patch image"


@dataclass(frozen=True)
class Input:
    """One file to process, and the folder of its results relative to the run's output."""

    path: Path
    kind: Kind
    relative: Path


@dataclass(frozen=True)
class Found:
    """Files at or below the sources of a run."""

    searched: tuple[Path, ...]
    """The sources."""
    inputs: list[Input]
    """Of each source by name."""
    failures: list[InputResult]
    """One for each folder that cannot be read, and for each pipe or device."""
    left_out: Mapping[str, int]
    """Files that are not read, by suffix with its dot, or "no suffix"; the most frequent first."""
    not_chosen: list[Path]
    """Inputs that `include` and `exclude` of the settings do not take, and folders of which they
    take nothing, so that these were not searched."""


def search(
    source: Path, out: Path, settings: InferSettings | None = None, place: Path | None = None
) -> Found:
    """Find the inputs at or below `source`, and what is not read there.

    Results of this and earlier runs are not searched: `out` may lie inside `source`. Hidden files,
    files and folders that are part of a slide beside them, and links to folders are skipped; they
    do not count as left out.

    Args:
        source: a slide, an image or a folder.
        out: of the results.
        settings: they choose among the inputs; None takes all.
        place: of `source`, to which inputs are relative; None for a file's name, and for the folder
            itself.

    Raises:
        UsageError: `source` is missing, of an unknown kind, or holds nothing that can be processed.
    """
    settings = settings or InferSettings()
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise UsageError(
            f"{source} cannot be read: {error.strerror}; "
            "give a slide, a patch image or a folder of them"
        ) from error
    if not stat.S_ISDIR(mode):
        if not stat.S_ISREG(mode):
            raise UsageError(f"{source} {_NO_FILE}")
        kind = kind_of(source)
        if kind is None:
            raise UsageError(
                f"{source} is neither a slide nor a patch image; known are {_known_suffixes()}"
            )
        item = Input(source, kind, place or Path(source.name))
        if not settings.takes(item.relative):
            return Found((source,), [], [], {}, [source])
        return Found((source,), [item], [], {}, [])
    found = walk(source, out, settings, place or Path())
    if not found.inputs and not found.failures and not found.not_chosen:
        others = f" ({left_out_line(found.left_out)})" if found.left_out else ""
        raise UsageError(
            f"{source} holds no slide or patch image{others}; known are {_known_suffixes()}"
        )
    return found


def left_out_line(left_out: Mapping[str, int]) -> str:
    """One line about `Found.left_out`: "5 files left out: .bmp (4), .vsi"."""
    count = sum(left_out.values())
    kinds = [suffix if n == 1 else f"{suffix} ({n})" for suffix, n in left_out.items()]
    rest = len(kinds) - _SHOWN_SUFFIXES
    if rest > 0:
        kinds[_SHOWN_SUFFIXES:] = [counted(rest, "other kind")]
    return f"{counted(count, 'file')} left out: {', '.join(kinds)}"


def kind_of(path: Path) -> Kind | None:
    """Kind of a file by its suffix; None for neither."""
    suffix = path.suffix.lower()
    if suffix in PATCH_SUFFIXES:
        return "patch"
    return "slide" if suffix in SLIDE_SUFFIXES else None


def fingerprint_of(path: Path) -> str:
    """SHA-256 of a file's size, first and last MiB: tells files apart without reading gigabytes.

    Files that belong to a slide (see `companions`) count with their names, sizes and times.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return _fingerprint(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "big"))
    with path.open("rb") as file:
        digest.update(file.read(_FINGERPRINT_BYTES))
        file.seek(max(0, size - _FINGERPRINT_BYTES))
        digest.update(file.read(_FINGERPRINT_BYTES))
    for companion in sorted(companions(path)):
        parts = sorted(companion.iterdir()) if companion.is_dir() else [companion]
        for part in parts:
            facts = part.stat()
            digest.update(f"{part.name} {facts.st_size} {facts.st_mtime_ns}".encode())
    return digest.hexdigest()


def walk(source: Path, out: Path, settings: InferSettings, place: Path) -> Found:
    """Find the inputs below a folder, of which there may be none; see `search`."""
    found: list[Input] = []
    failures: list[InputResult] = []
    others: list[Path] = []
    not_chosen: list[Path] = []

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename or source)
        reason = InputError(f"{folder} cannot be read: {error.strerror}")
        failures.append(InputResult(folder, None, "failed", str(reason)))

    results = out.resolve()
    parts_of_slides: set[Path] = set()
    for name, folders, files in os.walk(source, onerror=unreadable):
        here = [Path(name) / file for file in sorted(files) if not file.startswith(".")]
        for path in here:
            kind = kind_of(path)
            if kind is None:
                others.append(path)
                parts_of_slides |= _folder_of_vsi(path)
            if kind is None or path in parts_of_slides:
                continue
            item = Input(path, kind, place / path.relative_to(source))
            if not _is_regular(path) and settings.takes(item.relative):
                reason = InputError(f"{path} {_NO_FILE}")
                failures.append(InputResult(path, kind, "failed", str(reason)))
                continue
            found.append(item)
            parts_of_slides |= companions(path)
        below = [Path(name, f) for f in sorted(folders)]
        below = [f for f in below if f not in parts_of_slides and _is_searched(f, results)]
        excluded = [f for f in below if settings.leaves_out(place / f.relative_to(source))]
        not_chosen += excluded
        folders[:] = [f.name for f in below if f not in excluded]
    items = [item for item in found if item.path not in parts_of_slides]
    chosen = [item for item in items if settings.takes(item.relative)]
    not_chosen += [item.path for item in items if not settings.takes(item.relative)]
    left_out = [p for p in others if p not in parts_of_slides and not _is_known(p.name)]
    counts = by_frequency(Counter(map(_suffix, left_out)))
    return Found((source,), chosen, failures, counts, not_chosen)


def by_frequency(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, the largest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def _is_searched(folder: Path, results: Path) -> bool:
    hidden = folder.name.startswith(".")
    return not hidden and folder.resolve() != results and not _holds_results(folder)


def _folder_of_vsi(path: Path) -> set[Path]:
    """The folder with the pixels of an Olympus .vsi file, which is not read either."""
    return {path.with_name(f"_{path.stem}_")} if path.suffix.lower() == ".vsi" else set()


def _is_known(name: str) -> bool:
    """Whether earlier runs, or Windows behind its user's back, write files of that name."""
    known = (*RESULT_NAMES, RUN_NAME, TABLE_NAME, "desktop.ini", "Thumbs.db")
    return name in known or RECORD_NAME.fullmatch(name) is not None


def _suffix(path: Path) -> str:
    return path.suffix.lower() or "no suffix"


def _holds_results(folder: Path) -> bool:
    """Whether a folder is named after an input and holds nothing but what runs write there."""
    if kind_of(folder) is None:
        return False
    try:
        names = {entry.name for entry in folder.iterdir()}
    except OSError:
        return False  # the search will say that it cannot be read
    return all(name in RESULT_NAMES or name.startswith(".") for name in names)


def _is_regular(path: Path) -> bool:
    """False for pipes and devices, which would block; True for files and what cannot be told."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # reading it will say what is wrong


def _known_suffixes() -> str:
    return " ".join(sorted(SLIDE_SUFFIXES | PATCH_SUFFIXES))
