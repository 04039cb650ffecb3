"""Patterns that choose inputs by their names."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from os import sep
from pathlib import PurePath


def matches(pattern: str, relative: PurePath) -> bool:
    """Whether `pattern` is of an input at `relative`, its path below the folder that is searched.

    A pattern with a / is compared with the whole path, any other with the last name alone. "*" is
    any characters, a / too, "?" is one, "[abc]" one of these; upper and lower case are the same.
    A pattern that ends with a / is of all that is below.
    """
    pattern = normalised(pattern)
    name = relative.as_posix() if "/" in pattern else relative.name
    return fnmatchcase(name.lower(), pattern)


def takes(relative: PurePath, include: Iterable[str], exclude: Iterable[str]) -> bool:
    """Whether an input is chosen: by a pattern to include, or there is none; by none to exclude."""
    include = tuple(include)
    wanted = not include or any(matches(pattern, relative) for pattern in include)
    return wanted and not any(matches(pattern, relative) for pattern in exclude)


def leaves_out(folder: PurePath, exclude: Iterable[str]) -> bool:
    """Whether all that is below `folder`, at any depth, is excluded by one of the patterns."""
    below = [pattern for pattern in map(normalised, exclude) if pattern.endswith("/*")]
    return any(matches(pattern, folder / "x") for pattern in below)


def normalised(pattern: str) -> str:
    """A pattern as it is compared: in lower case, with forward slashes."""
    pattern = pattern.replace(sep, "/").lower()
    return f"{pattern}*" if pattern.endswith("/") else pattern
