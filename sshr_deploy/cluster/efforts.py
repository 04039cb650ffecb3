"""Work of several processes as one."""

from __future__ import annotations

from collections.abc import Iterable

from sshr_deploy.errors import counted
from sshr_deploy.runtime.pipeline.ledger import Ledger
from sshr_deploy.runtime.results.records import RunEffort


def merged(efforts: Iterable[RunEffort | None]) -> RunEffort | None:
    """The sum of those that there are; None where there are none."""
    found = [effort for effort in efforts if effort is not None]
    if not found:
        return None
    ledger = Ledger()
    for effort in found:
        ledger.merge(effort)
    return RunEffort(
        **dict(ledger.effort()),
        readers=sum(effort.readers for effort in found),
        readers_chosen_by=f"{counted(len(found), 'worker')}: {found[0].readers_chosen_by}",
    )
