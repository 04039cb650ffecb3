"""Work of a run: its inputs, and its hold on the folder of the results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.pipeline.discovery import Found
from sshr_deploy.runtime.pipeline.run_lock import RunLock, run_lock
from sshr_deploy.runtime.pipeline.sources import Sources, find_inputs, sources_of
from sshr_deploy.runtime.pipeline.terms import Terms
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import check_mpp


@dataclass(frozen=True)
class Work:
    """Inputs of a run, and its hold on the folder of the results."""

    source: Path
    """That which was given, or the folder that holds all."""
    out: Path
    found: Found
    lock: RunLock


@contextmanager
def prepare_run(
    source: Path | Sources, out: Path, settings: InferSettings, terms: Terms | None = None
) -> Iterator[Work]:
    """Refuse what cannot work, before an engine is opened, and enter `out`; see `run_lock`.

    Other runs of the same `terms` share `out`; without, none may. Where nothing is written into
    `out`, it is not made.

    Raises:
        UsageError: nothing to do at `source`, an impossible pixel size in the settings, `out`
            cannot take the results, or a run that does something else writes there.
        SourceError: several sources cannot be used, or their results would share folders; or the
            table of pixel sizes contradicts itself.
    """
    sources = sources_of(source)
    found = checked_inputs(sources, out, settings)
    with run_lock(out, terms) as lock:
        yield Work(sources.folder, out, found, lock)


def checked_inputs(sources: Sources, out: Path, settings: InferSettings) -> Found:
    """The inputs of a run; refuses what cannot work, before an engine is opened or `out` is made.

    Raises:
        UsageError, SourceError: see `prepare_run`.
    """
    table = settings.mpp_table
    check_mpp(settings.mpp_um, force=settings.force_mpp and table is None)
    found = find_inputs(sources, out, settings)
    if table is not None:
        table.check(item.relative for item in found.inputs)
    for item in found.inputs:
        if (out / item.relative).is_file():
            raise UsageError(
                f"`out` {out} is where the inputs are ({item.relative} is there); "
                "choose another folder"
            )
    return found
