"""States of a bundle's engines on this machine: which can be used, and why the rest cannot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import BundleError, MissingExtraError, SessionError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.candidate import Candidate, candidates_for
from sshr_deploy.runtime.engines.entry import Entry
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.engines.machine_key import machine_key
from sshr_deploy.runtime.engines.qualification import misses
from sshr_deploy.runtime.engines.store import EngineStore


class State(StrEnum):
    """Of one engine of the store."""

    READY = "ready"
    REFUSED = "refused"
    """It was compared with the reference, and differs too much."""
    STALE = "stale"
    """Made for another machine, library or model."""
    DAMAGED = "damaged"


@dataclass(frozen=True)
class EngineState:
    """One engine of the store, as this machine sees it."""

    entry: Entry
    state: State
    reason: str
    """Empty where it is ready."""


def engine_states(bundle: Bundle) -> list[EngineState]:
    """The state of each engine in the bundle's store; every file is checked.

    Raises:
        BundleError: the store cannot be read.
    """
    store = EngineStore(bundle.path)
    if os.path.lexists(store.folder) and not store.folder.is_dir():
        raise BundleError(f"{store.folder} is not a folder; move it away")
    return [_state(bundle, entry) for entry in store.entries()]


def _state(bundle: Bundle, entry: Entry) -> EngineState:
    if entry.key is None or entry.record is None:
        return EngineState(entry, State.DAMAGED, entry.damage or "it has no record")
    key = entry.key
    kind = find_kind(key.engine)
    if not key.for_patches:
        if bundle.manifest.fields is None:
            return EngineState(entry, State.STALE, "the bundle has no graphs for fields any more")
        bundle = bundle.on_fields()
    candidates = candidates_for(bundle, kind, Precision(key.precision)) if kind else []
    if not candidates:
        reason = f"the bundle has no {key.precision} for {key.engine} any more"
        return EngineState(entry, State.STALE, reason)
    if stale := _stale(bundle, key, candidates[0]):
        return EngineState(entry, State.STALE, stale)
    if said := misses(entry.record.qualification, candidates[0].tolerance):
        return EngineState(entry, State.REFUSED, "; ".join(said))
    return EngineState(entry, State.READY, "")


def _stale(bundle: Bundle, key: EngineKey, candidate: Candidate) -> str:
    try:
        now = machine_key(bundle, candidate, max(key.batches, default=1))
    except (SessionError, MissingExtraError) as error:
        return f"it cannot run here: {error}"
    return ", ".join(key.differences(now))
