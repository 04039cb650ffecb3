"""Looks through a watched folder: its slides, and by what one tells that they changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.pipeline.discovery import Input, walk
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import companions


@dataclass(frozen=True)
class WatchedFolder:
    """A folder, and where its results go below those of the watch."""

    path: Path
    """Absolute."""
    place: Path
    """Relative to the results of the watch; `Path()` for one folder alone."""


@dataclass(frozen=True)
class Files:
    """State of all files of a slide."""

    signature: str
    """Of their names, sizes and times: another one once any of them is written on or replaced."""
    bytes: int
    written_s: float
    """The latest change, in seconds since 1970 by the clock that the files have."""
    lacks: str
    """Why they cannot be a whole slide, however long they stay as they are; "" if they can."""


@dataclass(frozen=True)
class Scan:
    """State of a watched folder."""

    slides: dict[Input, Files]
    unreadable: tuple[Path, ...]
    """Folders and files below it of which nothing can be said."""
    is_empty: bool
    """It holds nothing at all, hidden files aside."""


def watched_folders(paths: Sequence[Path], out: Path) -> list[WatchedFolder]:
    """Folders to watch: results of one alone go below `out`, else below its name there.

    Raises:
        UsageError: one is no folder, in another, or where its own results would go; or two have
            the same name.
    """
    folders = [path.absolute() for path in paths]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder; give the one where the scanner puts slides")
    if len(folders) == 1:
        return [_apart(WatchedFolder(folders[0], Path()), out)]
    for folder in folders:
        others = [other for other in folders if other is not folder]
        if any(folder.is_relative_to(other) for other in others):
            raise UsageError(f"{folder} is watched twice; give each folder once, without its own")
        if any(folder.name == other.name for other in others):
            raise UsageError(
                f"two folders are named {folder.name}, and their results would be mixed; watch "
                "the folder around them, or use another `out` for one"
            )
    return [_apart(WatchedFolder(folder, Path(folder.name)), out) for folder in folders]


def _apart(folder: WatchedFolder, out: Path) -> WatchedFolder:
    """The same; each slide has the path of its own folder of results, if that is the same place."""
    if (out / folder.place).resolve() == folder.path.resolve():
        raise UsageError(
            f"`out` {out} is where the slides of {folder.path} are; choose another folder"
        )
    return folder


def scan(folder: WatchedFolder, out: Path, settings: InferSettings) -> Scan:
    """Look for slides, by the rules of `discovery`; images (PNG, JPEG) are none.

    Raises:
        OSError: the folder itself cannot be read.
    """
    with os.scandir(folder.path) as entries:
        is_empty = all(entry.name.startswith(".") for entry in entries)
    found = walk(folder.path, out, settings, folder.place)
    unreadable = [failure.path for failure in found.failures]
    slides: dict[Input, Files] = {}
    for item in found.inputs:
        if item.kind != "slide":
            continue
        try:
            state = files_of(item.path)
        except OSError:  # most often it has just been renamed: the next look will say
            unreadable.append(item.path)
            continue
        slides[item] = state
    return Scan(slides, tuple(unreadable), is_empty)


def files_of(path: Path) -> Files:
    """State of the files of the slide at `path`: itself, and its `companions`.

    Raises:
        OSError: one of them is not there, or cannot be asked.
    """
    beside = sorted(companions(path))
    parts = [path]
    for companion in beside:
        parts += _below(companion) if companion.is_dir() else [companion]
    digest, total, written_s = hashlib.sha256(), 0, 0.0
    for part in parts:
        facts = part.stat()
        name = part.relative_to(path.parent)
        digest.update(os.fsencode(f"{name}\n{facts.st_size} {facts.st_mtime_ns}\n"))
        total += facts.st_size
        written_s = max(written_s, facts.st_mtime)
    return Files(digest.hexdigest(), total, written_s, _lacks(path, parts))


def _lacks(path: Path, parts: list[Path]) -> str:
    if path.stat().st_size == 0:
        return "the file is empty so far"
    if path.suffix.lower() == ".mrxs" and len(parts) == 1:
        return f"its folder {path.stem} is not there yet"
    return ""


def _below(folder: Path) -> list[Path]:
    return sorted(
        Path(name) / file for name, _, files in os.walk(folder, onerror=_raise) for file in files
    )


def _raise(error: OSError) -> None:
    raise error
