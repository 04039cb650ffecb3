"""Measurements of an INT8 search, in files that a killed search leaves usable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.atomic import atomic_path
from sshr_deploy.errors import UsageError
from sshr_deploy.export.graph.external_data import weight_files
from sshr_deploy.export.int8.activation_ranges import Histogram
from sshr_deploy.export.int8.verdicts import Verdict

_VERDICTS = "verdicts.jsonl"
_CHUNK_BYTES = 1 << 20


class SearchKeys(NamedTuple):
    """SHA-256 of what the findings of a search depend on."""

    histograms: str
    """Of patches, judge's name and the FP32 graph with its weights."""
    verdicts: str
    """Of the same and the graph that candidates quantise, with its weights."""


def search_keys(
    source: Path, graph: Path, patches: NDArray[np.uint8], judge_name: str
) -> SearchKeys:
    """Keys of a search that measures ranges on `source` and quantises `graph`.

    Raises:
        OSError: a graph cannot be read.
    """
    digest = hashlib.sha256(f"{patches.shape}{judge_name}".encode())
    digest.update(np.ascontiguousarray(patches).tobytes())
    keys = []
    for path in (source, graph):
        for part in (path, *weight_files(path)):
            with part.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
        keys.append(digest.hexdigest())
    return SearchKeys(*keys)


def check_state(folder: Path) -> None:
    """Refuse a folder for the state of a search that is something else.

    Raises:
        UsageError: it is no folder, or holds what no search wrote.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is in the way of the INT8 search; move it away")
    if folder.is_dir() and (foreign := sorted(set(folder.iterdir()) - _own(folder))):
        raise UsageError(f"{folder} holds {foreign[0].name}; move it away")


def clear_state(folder: Path) -> None:
    """Remove what searches wrote into `folder`, and the folder if nothing else is in it.

    Raises:
        OSError: a file cannot be removed.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in _own(folder):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it
        folder.rmdir()


def _own(folder: Path) -> set[Path]:
    return {
        path
        for pattern in (_VERDICTS, "histograms-*.npz", ".histograms-*.partial")
        for path in folder.glob(pattern)
        if path.is_file()
    }


class SearchState:
    """Verdicts and histograms of one search in `folder`, which other searches may share."""

    def __init__(self, folder: Path, keys: SearchKeys) -> None:
        self._path = folder / _VERDICTS
        self._histograms = folder / f"histograms-{keys.histograms[:16]}.npz"
        self._key = keys.verdicts
        self._verdicts = self._read()

    def verdict(self, candidate: Mapping[str, Any], judge: Callable[[], Verdict]) -> Verdict:
        """That of an earlier judgement of the same candidate, or a new one, which is kept.

        Raises:
            OSError: the file cannot be written.
        """
        text = json.dumps(candidate, sort_keys=True)
        key = hashlib.sha256(f"{self._key}{text}".encode()).hexdigest()
        if key not in self._verdicts:
            verdict = judge()
            self._append({"key": key, **candidate, "verdict": asdict(verdict)})
            self._verdicts[key] = verdict
        return self._verdicts[key]

    def histograms(self, measure: Callable[[], dict[str, Histogram]]) -> dict[str, Histogram]:
        """Those of an earlier run, or new ones, which are kept.

        Raises:
            OutputError: the file cannot be written.
        """
        if self._histograms.exists():
            with np.load(self._histograms, allow_pickle=False) as file:
                names, counts, ends = (file[key] for key in ("names", "counts", "ends"))
            return {
                str(name): Histogram(row, *map(float, limits))
                for name, row, limits in zip(names, counts, ends, strict=True)
            }
        found = measure()
        with atomic_path(self._histograms) as partial, partial.open("wb") as out:
            np.savez_compressed(
                out,
                names=np.array(list(found)),
                counts=np.stack([h.counts for h in found.values()]),
                ends=np.array([(h.limit, h.low, h.high) for h in found.values()]),
            )
        return found

    def _read(self) -> dict[str, Verdict]:
        if not self._path.exists():
            return {}
        verdicts = {}
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                verdicts[entry["key"]] = Verdict(**entry["verdict"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that a killed search did not finish is measured again
        return verdicts

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
