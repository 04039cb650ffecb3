"""Inputs of a run as options give them, and what is said of those that are not taken."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sshr_deploy.errors import UsageError, counted

if TYPE_CHECKING:
    from sshr_deploy.runtime.pipeline.discovery import Found
    from sshr_deploy.runtime.pipeline.sources import Sources
    from sshr_deploy.runtime.settings import InferSettings

_SHOWN_NAMES = 8


def given_sources(inputs: Sequence[Path] | None, listed: Path | None) -> Sources:
    """Sources of a run from its arguments and its `--list`, which is read from stdin for "-".

    Raises:
        UsageError: there is neither, both do not fit, or the list cannot be read or is empty.
    """
    from sshr_deploy.runtime.pipeline.sources import Sources, listed_sources

    if listed is None:
        if not inputs:
            raise UsageError("give a slide, an image or a folder, or a list of them with `list`")
        return Sources(tuple(inputs))
    if inputs and len(inputs) > 1:
        raise UsageError("with `list`, give no INPUT or one folder that holds what it lists")
    below = inputs[0] if inputs else None
    if str(listed) == "-":
        return listed_sources(sys.stdin.buffer.read(), "stdin", below)
    try:
        content = listed.read_bytes()
    except OSError as error:
        raise UsageError(f"`list` {listed} cannot be read: {error.strerror}") from error
    return listed_sources(content, f"`list` {listed}", below)


def notes_on(found: Found, settings: InferSettings) -> Iterator[str]:
    """A line each about files that are no inputs, inputs that are not chosen, and unused sizes."""
    from sshr_deploy.runtime.pipeline.discovery import left_out_line

    if found.left_out:
        yield left_out_line(found.left_out)
    if found.not_chosen:
        count = len(found.not_chosen)
        yield f"left out by `include` and `exclude` (inputs, and whole folders): {count}"
    table = settings.mpp_table
    unused = [] if table is None else table.unused([item.relative for item in found.inputs])
    if unused:
        names = ", ".join(unused[:_SHOWN_NAMES])
        rest = len(unused) - _SHOWN_NAMES
        more = f" and {counted(rest, 'other row')}" if rest > 0 else ""
        yield f"`mpp_table` has rows of no input here: {names}{more}"
