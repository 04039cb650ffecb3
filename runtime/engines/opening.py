"""From a bundle to a session that is proven on this machine, built first where that is needed."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.manifest import Artifact, Qualification
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.building.from_onnx import BuildOptions, build_engine
from sshr_deploy.runtime.engines.entry import PLAN_NAME, Entry, Record
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.engines.kind import EngineKind, Opening
from sshr_deploy.runtime.engines.machine_key import machine_key
from sshr_deploy.runtime.engines.qualification import misses, passes_for, qualify
from sshr_deploy.runtime.engines.reference import ReferenceSet, read_reference
from sshr_deploy.runtime.engines.store import EngineStore, new_record
from sshr_deploy.runtime.progress import OnStep, Sparse
from sshr_deploy.runtime.sessions.onnxruntime.provider_trial import (
    options_of,
    time_pair,
    trial_record,
    untried_record,
)
from sshr_deploy.runtime.settings import OpenOptions


class Opener:
    """Opens artefacts of one bundle.

    Args:
        bundle: its files are checked already.
        options: what the user allows.
        on_step: told what is being done.
    """

    def __init__(self, bundle: Bundle, options: OpenOptions, on_step: OnStep) -> None:
        self.bundle, self.options, self.on_step = bundle, options, on_step
        self.store = EngineStore(bundle.path)

    def open(self, kind: EngineKind, artifact: Artifact) -> Session:
        """Open one artefact with one engine.

        Raises:
            SessionError: the engine does not work here, or is not proven and may not be used so.
            BundleError: the bundle's reference set is broken.
        """
        key = machine_key(self.bundle, artifact, kind, kind.batch_for(self.options.batch))
        entry = self.store.find(key)
        if entry is None or entry.record is None or entry.damage is not None:
            reason = self._why_not_there(key, entry)
            if not self.options.build:
                return self._unproven(kind, key, artifact, None, reason)
            self.on_step(f"{kind.name} {artifact.precision}: {reason}; {self._doing(kind)}")
            entry, record = self._make(kind, key, artifact)
        else:
            record = entry.record
        if said := misses(record.qualification, artifact.tolerance):
            reason = "it does not equal the reference here: " + "; ".join(said)
            return self._unproven(kind, key, artifact, entry, reason)
        session = self._session(kind, key, artifact, entry.path, options_of(record.build))
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
        file = self.bundle.file(manifest.reference_file)
        return read_reference(file, manifest.profile.num_classes)

    def _why_not_there(self, key: EngineKey, entry: Entry | None) -> str:
        if entry is not None:
            return str(entry.damage)
        nearest = self.store.nearest(key)
        if nearest is None or nearest.key is None:
            return "not qualified on this machine yet"
        return "what is there was made for something else: " + ", ".join(
            nearest.key.differences(key)
        )

    def _doing(self, kind: EngineKind) -> str:
        patches = f"comparing it with the reference on {len(self.reference)} patches"
        return patches if kind.library is None else f"building the engine and {patches}"

    def _unproven(
        self,
        kind: EngineKind,
        key: EngineKey,
        artifact: Artifact,
        entry: Entry | None,
        reason: str,
    ) -> Session:
        nothing_to_run = kind.library is not None and entry is None
        if nothing_to_run or not self.options.allow_unqualified:
            way = "run without --no-build" if entry is None else "choose another --precision"
            more = "" if nothing_to_run else ", or add --allow-unqualified"
            raise SessionError(f"{key.engine} {key.precision}: {reason}; {way}{more}")
        kept = options_of(entry.record.build) if entry and entry.record else {}
        session = self._session(kind, key, artifact, entry.path if entry else None, kept)
        session.info = replace(session.info, unqualified=reason)
        return session

    def _make(self, kind: EngineKind, key: EngineKey, artifact: Artifact) -> tuple[Entry, Record]:
        """Build where there is something to build, qualify, and keep both."""
        found: tuple[dict[str, Any], Qualification] | None = None
        try:
            with self.store.draft(key) as draft:
                found = self._built_and_qualified(kind, key, artifact, draft.folder)
                return draft.commit(*found)
        except OSError as error:
            reason, fix = error.strerror or error, self._store_fix(error)
            if kind.library is not None:
                raise SessionError(f"cannot write {self.store.folder}: {reason}; {fix}") from error
            self.on_step(f"cannot keep what was found out in {self.store.folder}: {reason}; {fix}")
        if found is None:  # nothing to build, so no folder is needed
            found = self._built_and_qualified(kind, key, artifact, None)
        record = new_record(key, *found)
        return Entry(self.store.folder, record, key, None), record

    def _built_and_qualified(
        self, kind: EngineKind, key: EngineKey, artifact: Artifact, folder: Path | None
    ) -> tuple[dict[str, Any], Qualification]:
        build = self._build(kind, key, artifact, folder)
        with self._session(kind, key, artifact, folder) as session:
            found = self._qualified(key, session)
            tried, found = self._tried(kind, key, artifact, session, found)
        return {**build, **tried}, found

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

    def _qualified(self, key: EngineKey, session: Session) -> Qualification:
        total, done, sparse = len(self.reference), 0, Sparse(self.on_step)

        def on_patches(count: int) -> None:
            nonlocal done
            done += count
            sparse(f"compared {done} patches, of {total} in each pass")

        return qualify(
            session,
            self.reference,
            self.bundle.manifest.profile,
            passes=passes_for(key.batches),
            fill=bool(key.batches),
            on_patches=on_patches,
        )

    def _tried(
        self,
        kind: EngineKind,
        key: EngineKey,
        artifact: Artifact,
        session: Session,
        found: Qualification,
    ) -> tuple[dict[str, Any], Qualification]:
        """What the record says of options on trial, and the proof of what will be opened."""
        provider = kind.provider
        if provider is None or not provider.on_trial or misses(found, artifact.tolerance):
            return {}, found
        options, batch = dict(provider.on_trial), kind.batch_for(self.options.batch)
        try:
            with self._session(kind, key, artifact, None, options) as other:
                found_so = self._qualified(key, other)
                if said := misses(found_so, artifact.tolerance):
                    return untried_record(options, "; ".join(said)), found
                trial = time_pair(session, other, batch)
        except SessionError as error:
            return untried_record(options, str(error)), found
        return trial_record(options, trial, batch), found_so if trial.is_faster else found

    def _build(
        self, kind: EngineKind, key: EngineKey, artifact: Artifact, folder: Path | None
    ) -> dict[str, Any]:
        if kind.library is None or folder is None:
            return {}
        options, sparse = self.bundle.manifest.engine_options, Sparse(self.on_step)
        compatible = options.version_compatible and kind.library.version_compatible
        report = build_engine(
            self.bundle.file(artifact.file),
            folder / PLAN_NAME,
            library=kind.library,
            precision=artifact.precision,
            options=BuildOptions(
                batches=key.batches,
                workspace_mib=options.workspace_mib,
                version_compatible=compatible,
                hardware_compatible=options.hardware_compatible,
                timing_cache=self.store.timing_cache(key),
            ),
            on_progress=lambda what, share: sparse(f"{what}: {share:.0%}"),
            wider=frozenset(artifact.quantisation.wide_nodes if artifact.quantisation else ()),
        )
        return asdict(report)

    def _session(
        self,
        kind: EngineKind,
        key: EngineKey,
        artifact: Artifact,
        folder: Path | None,
        options: Mapping[str, str] | None = None,
    ) -> Session:
        engine_options = self.bundle.manifest.engine_options
        session = kind.open(
            Opening(
                graph=self.bundle.file(artifact.file),
                classes=self.bundle.manifest.profile.num_classes,
                precision=key.precision,
                batch=kind.batch_for(self.options.batch),
                batches=key.batches,
                folder=folder,
                options=options or {},
                runtime_cache=self.store.runtime_cache(key),
                host_code=engine_options.version_compatible,
            )
        )
        if key.sm is not None and session.info.device != key.device:
            session.close()
            raise SessionError(
                f"{key.engine} runs on {session.info.device}, not on {key.device}; "
                "set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
        return session
