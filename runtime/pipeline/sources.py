"""Where the inputs of a run come from: a slide, an image, a folder, or a list of these."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.errors import SourceError, UsageError
from sshr_deploy.runtime.pipeline.discovery import Found, Input, by_frequency, search
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import companions
from sshr_deploy.runtime.text_file import decoded


@dataclass(frozen=True)
class Sources:
    """Slides, images and folders of a run.

    Each file has a folder for its results by its own name, what is in a folder by its path below
    that; so two files of the same name are refused, unless both lie `below` a folder.
    """

    paths: tuple[Path, ...]
    below: Path | None = None
    """Results have the place that their input has below this folder."""

    @property
    def folder(self) -> Path:
        """The only source, or the folder that holds all."""
        if self.below is not None or len(self.paths) == 1:
            return self.below or self.paths[0]
        try:
            return Path(os.path.commonpath([path.absolute() for path in self.paths]))
        except ValueError:  # drives of Windows
            return self.paths[0]


def sources_of(given: Path | Sources) -> Sources:
    """A path as the only source."""
    return given if isinstance(given, Sources) else Sources((given,))


def listed_sources(content: bytes, name: str, below: Path | None = None) -> Sources:
    """Sources from a list: a path a line; empty lines and those that begin with # do not count.

    Args:
        content: of the list, see `decoded`.
        name: of the list, for messages.
        below: a folder that relative paths are taken from, and in which results keep their places;
            without it they are taken from the current folder.

    Raises:
        UsageError: the list has no path, or `below` is no folder.
    """
    if below is not None and not below.is_dir():
        raise UsageError(f"{below} is no folder; with a list give the folder that holds its slides")
    lines = [line.strip() for line in decoded(content).splitlines()]
    paths = [Path(_unquoted(line)) for line in lines if line and not line.startswith("#")]
    if not paths:
        raise UsageError(f"{name} lists nothing; write the path of a slide or folder on each line")
    return Sources(tuple(paths if below is None else (below / path for path in paths)), below)


def find_inputs(sources: Sources, out: Path, settings: InferSettings) -> Found:
    """The inputs of all sources, each once; see `search`.

    Raises:
        UsageError: see `search`; or the settings choose none of the inputs.
        SourceError: several sources cannot be used, or inputs would share a folder of results.
    """
    found: list[Found] = []
    problems: list[str] = []
    for path in dict.fromkeys(sources.paths):
        try:
            found.append(search(path, out, settings, _place(path, sources.below)))
        except UsageError as error:
            if len(sources.paths) == 1:
                raise
            problems.append(str(error))
    joined = found[0] if len(found) == 1 else _joined(found)
    problems += _collisions(joined.inputs)
    if problems:
        raise SourceError.of(problems, "inputs that cannot be used")
    if joined.not_chosen and not joined.inputs and not joined.failures:
        raise UsageError("`include` and `exclude` leave no input; change the patterns")
    return joined


def _place(path: Path, below: Path | None) -> Path | None:
    """Of a source below a folder; None where there is no such folder."""
    if below is None:
        return None
    outside = UsageError(
        f"{path} is not below {below}; list what is in it, or give a folder that holds both"
    )
    try:
        place = Path(os.path.relpath(path, below))  # links stay as they are
    except ValueError:  # drives of Windows
        raise outside from None
    if place.parts[:1] == ("..",):
        raise outside
    return place


def _joined(found: Sequence[Found]) -> Found:
    """All that was found in several sources; what lies in two of them counts once."""
    seen: set[Path] = set()
    chosen: list[Input] = []
    for item in (item for f in found for item in f.inputs):
        path = Path(os.path.abspath(item.path))  # noqa: PTH100  (without .., links as they are)
        if path not in seen:
            chosen.append(item)
            seen |= {path, *companions(path)}  # files of one slide may be listed each
    left_out: Counter[str] = Counter()
    for each in found:
        left_out.update(each.left_out)
    return Found(
        tuple(path for f in found for path in f.searched),
        chosen,
        list({failure.path: failure for f in found for failure in f.failures}.values()),
        by_frequency(left_out),
        list(dict.fromkeys(path for f in found for path in f.not_chosen)),
    )


def _collisions(inputs: Iterable[Input]) -> list[str]:
    """A line for each input whose results would go where those of another go."""
    first: dict[str, Input] = {}
    lines: list[str] = []
    for item in inputs:
        other = first.setdefault(os.path.normcase(item.relative), item)
        if other is not item:
            lines.append(
                f"{other.path} and {item.path} would share the folder {item.relative} of results; "
                "give the folder that holds both, with a list of what to take from it"
            )
    return lines


def _unquoted(line: str) -> str:
    """Without the quotes around it, with which Windows copies a path."""
    return line[1:-1] if len(line) > 1 and line[0] == line[-1] == '"' else line
