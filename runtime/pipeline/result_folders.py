"""The folders of single inputs inside a run's output: made, checked, and removed if empty."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from sshr_deploy.atomic import output_errors, remove_abandoned, remove_path, write_json
from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.outputs import OME_ZARR_NAME
from sshr_deploy.runtime.results.file_names import (
    ERROR_NAME,
    RESULT_NAMES,
    SUMMARY_NAME,
    UNFINISHED_NAME,
)
from sshr_deploy.runtime.results.findings import PatchSummary, SlideSummary, Summary


class ResultFolders:
    """Those of one run, below `out`."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._ours: dict[Path, list[Path]] = {}

    def fresh(self, relative: Path) -> Path:
        """The folder of an input's results, without what an earlier or killed run left there.

        Raises:
            OutputError: it cannot be made or emptied.
        """
        folder = self._out / relative
        levels = [self._out / relative, *(self._out / p for p in relative.parents[:-1])]
        ours = [level for level in levels if not level.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in RESULT_NAMES:
                with suppress(FileNotFoundError):
                    _remove(folder / name)
                    ours = levels  # an earlier run made them
            remove_abandoned(folder)
        except OSError as error:
            raise OutputError(
                f"cannot write to {folder}: {error.strerror}; choose another `out`"
            ) from error
        finally:
            self._ours[relative] = ours
        return folder

    def tidy(self, relative: Path) -> None:
        """Remove what a run left beside whole results that was killed as it had finished them."""
        folder = self._out / relative
        with suppress(OSError):  # the results are good
            (folder / UNFINISHED_NAME).unlink(missing_ok=True)
            remove_abandoned(folder)

    def keep(self, relative: Path) -> None:
        """The input is done: its folder stays."""
        self._ours.pop(relative, None)

    def remove_empty(self, relative: Path) -> None:
        """Remove the folder of an input that failed, and those around it, where nothing is in them.

        A folder that was there before the run and held no results stays.
        """
        with suppress(OSError):  # one that is not empty, and so are those around it
            for folder in self._ours.pop(relative, ()):
                folder.rmdir()

    def discard(self, relative: Path) -> None:
        """The input failed: what it wrote goes, but for the report of a defect."""
        if relative in self._ours:
            for name in set(RESULT_NAMES) - {ERROR_NAME}:
                with suppress(OSError):  # the input's own failure is what is told
                    _remove(self._out / relative / name)
        self.remove_empty(relative)

    def end(self, *, discard: bool) -> None:
        """The same for every input that is neither done nor failed, without `discard` if empty."""
        for relative in list(self._ours):
            if discard:
                self.discard(relative)
            else:
                self.remove_empty(relative)


def _remove(result: Path) -> None:
    """Remove a result; a folder in the place of a file is somebody else's, and an error."""
    if result.name == OME_ZARR_NAME:
        remove_path(result)
    else:
        result.unlink()


def file_sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Bytes by name of the files that were written; of a folder, of all files in it.

    Raises:
        OutputError: one of them is not there.
    """
    with output_errors(folder):
        return {name: _size(folder / name) for name in names}


def _size(path: Path) -> int:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def is_whole(folder: Path, summary: Summary) -> bool:
    """Whether every file that a summary names is there with its size; False if it states none."""
    sizes = summary.files
    if not isinstance(sizes, dict):
        return False  # an older format
    try:
        return file_sizes(folder, sizes) == sizes
    except OutputError:
        return False


def result_folders_below(
    out: Path, on_error: Callable[[OSError], object] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Each folder below `out` with the results of an input, and the names of its files.

    Hidden folders and the thousands of files of a `mask.ome.zarr` are not looked at. A folder that
    cannot be listed is passed over once `on_error` has been called with why.
    """
    for name, folders, files in os.walk(out, onerror=on_error):
        folders[:] = [one for one in folders if not one.startswith(".") and one != OME_ZARR_NAME]
        if SUMMARY_NAME in files:
            yield Path(name), files


def write_summary(folder: Path, summary: SlideSummary | PatchSummary) -> None:
    """Write the `summary.json` of a results folder.

    Raises:
        OutputError: it cannot be written.
    """
    write_json(folder / SUMMARY_NAME, summary.model_dump())


def read_summary(folder: Path) -> Summary | None:
    """The `summary.json` of a results folder; None where there is none of ours that is whole."""
    try:
        return _SUMMARY.validate_python(_read_json(folder))
    except (OSError, ValueError, RecursionError):  # ValueError: of json and of pydantic
        return None


def move_summary(folder: Path, path: str, summary: Summary) -> Summary:
    """Write into the `summary.json` of a results folder that its input is at `path` now.

    Returns what it says then.

    Raises:
        OutputError: it cannot be written.
    """
    with output_errors(folder):
        document = _read_json(folder)
    document["input"]["path"] = path
    write_json(folder / SUMMARY_NAME, document)
    source = summary.input.model_copy(update={"path": path})
    return summary.model_copy(update={"input": source})


_SUMMARY: TypeAdapter[Summary] = TypeAdapter(
    Annotated[Summary, Field(union_mode="left_to_right")]  # the strict ones first
)


def _read_json(folder: Path) -> Any:
    return json.loads((folder / SUMMARY_NAME).read_text("utf-8"))
