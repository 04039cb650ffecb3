"""From a bundle to a session that is proven on this machine, built first where that is needed."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import MissingExtraError, SessionError
from sshr_deploy.manifest import Qualification
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.building.from_onnx import BuildOptions, build_engine
from sshr_deploy.runtime.engines.candidate import Candidate, candidates_for
from sshr_deploy.runtime.engines.entry import PLAN_NAME, Entry, Record
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.engines.kind import Opening
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.engines.machine_key import machine_key
from sshr_deploy.runtime.engines.qualification import misses, passes_for, qualify
from sshr_deploy.runtime.engines.reference import ReferenceSet, read_reference
from sshr_deploy.runtime.engines.store import EngineStore, new_record
from sshr_deploy.runtime.engines.trial import (
    RIVAL_ROUNDS,
    Trial,
    not_faster,
    options_of,
    rivals_record,
    time_pair,
    trial_record,
    untried_record,
)
from sshr_deploy.runtime.progress import OnStep, Sparse
from sshr_deploy.runtime.settings import OpenOptions


class Opener:
    """Opens candidates of one bundle.

    Args:
        bundle: its files are checked already.
        options: what the user allows.
        on_step: told what is being done.
    """

    def __init__(self, bundle: Bundle, options: OpenOptions, on_step: OnStep) -> None:
        self.bundle, self.options, self.on_step = bundle, options, on_step
        self.store = EngineStore(bundle.path)

    def open(self, candidate: Candidate) -> Session:
        """Open one candidate, built and compared with the reference first where it is not yet.

        Raises:
            MissingExtraError, ExportError, SessionError: the engine does not work here, or is not
                proven and may not be used so.
            BundleError: the bundle's reference set is broken.
        """
        return self._open(candidate, *self._find(candidate))

    def open_if_faster(self, candidate: Candidate, rivals: Collection[str]) -> Session:
        """Open a candidate that its record shows to be faster than those of `rivals` it met.

        Raises:
            As `open`, and SessionError: it is not faster, or was not timed here yet.
        """
        key, entry = self._find(candidate)
        if entry is None or entry.record is None or entry.damage is not None:
            raise SessionError(
                f"not compared with {candidate.kind.graphs} here yet; run once with "
                f"`engine` {candidate.kind.name} and `precision` {candidate.precision}"
            )
        if reason := not_faster(entry.record.build, rivals):
            raise SessionError(reason)
        return self._open(candidate, key, entry)

    def _open(self, candidate: Candidate, key: EngineKey, entry: Entry | None) -> Session:
        if entry is None or entry.record is None or entry.damage is not None:
            reason = self._why_not_there(key, entry)
            if not self.options.build:
                return self._unproven(candidate, key, None, reason)
            self.on_step(f"{candidate}: {reason}; {self._doing(candidate)}")
            entry, record = self._make(candidate, key)
        else:
            record = entry.record
        if said := misses(record.qualification, candidate.tolerance):
            reason = "it does not equal the reference here: " + "; ".join(said)
            return self._unproven(candidate, key, entry, reason)
        session = self._session(candidate, key, self._folder(entry), options_of(record.build))
        session.info = replace(
            session.info,
            mask_agreement=record.qualification.mask_agreement,
            notes=(*session.info.notes, *record.build.get("notes", ())),
        )
        return session

    @cached_property
    def reference(self) -> ReferenceSet:
        """Patches and what the PyTorch FP32 network says of them."""
        manifest = self.bundle.manifest
        file = self.bundle.file(self.bundle.reference_file)
        return read_reference(file, manifest.profile.num_classes, self.bundle.geometry)

    def _find(self, candidate: Candidate) -> tuple[EngineKey, Entry | None]:
        key = machine_key(self.bundle, candidate, self._batch(candidate))
        return key, self.store.find(key)

    def _batch(self, candidate: Candidate) -> int:
        return candidate.kind.batch_for(self.options.batch, self.bundle.geometry)

    def _why_not_there(self, key: EngineKey, entry: Entry | None) -> str:
        if entry is not None:
            return str(entry.damage)
        nearest = self.store.nearest(key)
        if nearest is None or nearest.key is None:
            return "not qualified on this machine yet"
        return "what is there was made for something else: " + ", ".join(
            nearest.key.differences(key)
        )

    def _doing(self, candidate: Candidate) -> str:
        inputs = f"{len(self.reference)} {self.bundle.geometry.inputs}"
        compared = f"comparing it with the reference on {inputs}"
        return compared if candidate.kind.library is None else f"building the engine and {compared}"

    def _unproven(
        self, candidate: Candidate, key: EngineKey, entry: Entry | None, reason: str
    ) -> Session:
        nothing_to_run = candidate.kind.library is not None and entry is None
        if nothing_to_run or not self.options.allow_unqualified:
            way = "run without `no_build`" if entry is None else "choose another `precision`"
            more = "" if nothing_to_run else ", or add `allow_unqualified`"
            raise SessionError(f"{candidate}: {reason}; {way}{more}")
        kept = options_of(entry.record.build) if entry and entry.record else {}
        session = self._session(candidate, key, self._folder(entry), kept)
        session.info = replace(session.info, unqualified=reason)
        return session

    def _make(self, candidate: Candidate, key: EngineKey) -> tuple[Entry, Record]:
        """Build where there is something to build, qualify, and keep both."""
        found: tuple[dict[str, Any], Qualification] | None = None
        try:
            with self.store.draft(key) as draft:
                found = self._built_and_qualified(candidate, key, draft.folder)
                return draft.commit(*found)
        except OSError as error:
            reason, fix = error.strerror or error, self._store_fix(error)
            if candidate.kind.library is not None:
                raise SessionError(f"cannot write {self.store.folder}: {reason}; {fix}") from error
            self.on_step(f"cannot keep what was found out in {self.store.folder}: {reason}; {fix}")
        if found is None:  # nothing to build, so no folder is needed
            found = self._built_and_qualified(candidate, key, None)
        record = new_record(key, *found)
        return Entry(self.store.folder, record, key, None), record

    def _folder(self, entry: Entry | None) -> Path | None:
        """Where the entry's files are; None for one that could not be kept."""
        return None if entry is None or entry.path == self.store.folder else entry.path

    def _store_fix(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "free space"
        if error.errno == errno.ENOTEMPTY:
            return "move that away"
        if error.errno == errno.EBUSY:
            return "wait for the other process, then run the same command again"
        if os.path.lexists(self.store.folder) and not self.store.folder.is_dir():
            return "move it away"
        return "copy the bundle to a folder that you can write to"

    def _built_and_qualified(
        self, candidate: Candidate, key: EngineKey, folder: Path | None
    ) -> tuple[dict[str, Any], Qualification]:
        build = self._build(candidate, key, folder)
        with self._session(candidate, key, folder) as session:
            found = self._qualified(key, session)
            if misses(found, candidate.tolerance):
                return build, found
            if candidate.kind.graphs_of is not None:
                return {**build, **self._timed(candidate, session)}, found
            tried, found = self._tried(candidate, key, session, found)
        return {**build, **tried}, found

    def _build(self, candidate: Candidate, key: EngineKey, folder: Path | None) -> dict[str, Any]:
        library, artifact = candidate.kind.library, candidate.artifact
        if library is None or folder is None:
            return {}
        options, sparse = self.bundle.manifest.engine_options, Sparse(self.on_step)
        report = build_engine(
            self.bundle.file(artifact.file),
            folder / PLAN_NAME,
            library=library,
            precision=candidate.precision,
            options=BuildOptions(
                batches=key.batches,
                workspace_mib=options.workspace_mib,
                version_compatible=options.version_compatible and library.version_compatible,
                hardware_compatible=options.hardware_compatible,
                timing_cache=self.store.timing_cache(key),
            ),
            on_progress=lambda what, share: sparse(f"{what}: {share:.0%}"),
            wider=frozenset(artifact.quantisation.wide_nodes if artifact.quantisation else ()),
        )
        return asdict(report)

    def _qualified(self, key: EngineKey, session: Session) -> Qualification:
        total, done, sparse = len(self.reference), 0, Sparse(self.on_step)

        def on_patches(count: int) -> None:
            nonlocal done
            done += count
            sparse(f"compared {done} {self.bundle.geometry.inputs}, of {total} in each pass")

        return qualify(
            session,
            self.reference,
            self.bundle.manifest.profile,
            passes=passes_for(key.batches, self.bundle.geometry),
            fill=bool(key.batches),
            on_patches=on_patches,
        )

    def _tried(
        self, candidate: Candidate, key: EngineKey, session: Session, found: Qualification
    ) -> tuple[dict[str, Any], Qualification]:
        """Entry of the record for options on trial, and the proof of what will be opened."""
        provider = candidate.kind.provider
        if provider is None or not provider.on_trial:
            return {}, found
        options, batch = dict(provider.on_trial), self._batch(candidate)
        try:
            with self._session(candidate, key, None, options) as other:
                found_so = self._qualified(key, other)
                if said := misses(found_so, candidate.tolerance):
                    return untried_record(options, "; ".join(said)), found
                trial = time_pair(session, other, batch)
        except SessionError as error:
            return untried_record(options, str(error)), found
        return trial_record(options, trial, batch), found_so if trial.is_faster else found

    def _timed(self, candidate: Candidate, session: Session) -> dict[str, Any]:
        """Entry of the record for the engine whose graphs it runs: its best, and the same
        precision; an engine that does not work here is no rival."""
        kind, batch = find_kind(candidate.kind.graphs), self._batch(candidate)
        trials: dict[str, Trial] = {}
        for precision in (None, candidate.precision):
            rivals = candidates_for(self.bundle, kind, precision) if kind else []
            for rival in rivals:
                if str(rival) in trials:
                    break
                try:
                    with self._proven(rival) as other:
                        self.on_step(f"{candidate}: timing it against {rival}")
                        trials[str(rival)] = time_pair(other, session, batch, RIVAL_ROUNDS)
                    break
                except (MissingExtraError, SessionError) as error:
                    self.on_step(f"{candidate}: not timed against {rival}: {error}")
        return rivals_record(trials, batch)

    def _proven(self, candidate: Candidate) -> Session:
        options = replace(self.options, allow_unqualified=False)
        return Opener(self.bundle, options, self.on_step).open(candidate)

    def _session(
        self,
        candidate: Candidate,
        key: EngineKey,
        folder: Path | None,
        options: Mapping[str, str] | None = None,
    ) -> Session:
        engine_options = self.bundle.manifest.engine_options
        session = candidate.kind.open(
            Opening(
                graph=self.bundle.file(candidate.artifact.file),
                classes=self.bundle.manifest.profile.num_classes,
                precision=candidate.precision.value,
                batch=self._batch(candidate),
                batches=key.batches,
                folder=folder,
                options=options or {},
                runtime_cache=self.store.runtime_cache(key),
                host_code=engine_options.version_compatible,
                geometry=self.bundle.geometry,
                width=self.bundle.manifest.model.width,
                streams=self.options.streams,
            )
        )
        if key.sm is not None and session.info.device != key.device:
            session.close()
            raise SessionError(
                f"{key.engine} runs on {session.info.device}, not on {key.device}; "
                "set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
        return session
