"""The engine of a bundle whose throughput is measured, opened as every command opens it."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from sshr_deploy.benchmarks.contenders.bundle import bundle_contenders
from sshr_deploy.benchmarks.contenders.judging import judged, why_no_speed
from sshr_deploy.benchmarks.report.records import Agreement
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.geometry import PATCH_PX
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.machine.gpus import first_gpu
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.progress import OnStep, tell_nobody
from sshr_deploy.runtime.settings import OpenOptions


class BundleEngine:
    """Opens sessions of one engine, and compares them with the reference.

    Args:
        bundle: for patches, or for fields.
        name: of the engine, or "auto".
        precision: None for the fastest that it has.
        threads: CPU threads; None chooses by width and cores.
        allow_unqualified: take what is not shown to equal the reference, too.
        on_step: told what is built.

    Raises:
        UsageError: see `choose_threads`.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        precision: Precision | None = None,
        *,
        threads: int | None = None,
        allow_unqualified: bool = False,
        on_step: OnStep = tell_nobody,
    ) -> None:
        self.bundle, self.allow_unqualified = bundle, allow_unqualified
        self._name, self._precision, self._on_step = name, precision, on_step
        self._threads = choose_threads(bundle.manifest.model.width, threads)

    @property
    def threads(self) -> int:
        """CPU threads."""
        return self._threads.count

    @property
    def has_static_batches(self) -> bool | None:
        """Whether it is made for a batch size; None where the machine chooses the engine."""
        kind = find_kind(self._name)
        return None if kind is None else kind.has_static_batches

    def open(self, batch: int | None, streams: int | None) -> Session:
        """A session for calls of `batch` inputs, and so many at the same time (None chooses).

        Raises:
            SessionError, MissingExtraError, UsageError: see `open_session`.
        """
        use_threads(self._threads)
        patches = batch and math.ceil(batch * self.bundle.geometry.side_px**2 / PATCH_PX**2)
        options = OpenOptions(
            self._precision,
            patches,
            allow_unqualified=self.allow_unqualified,
            streams=streams,
        )
        return open_session(self.bundle, self._name, options, on_step=self._on_step)

    def gpu(self, session: Session) -> int | None:
        """Index of the GPU that a session computes on, by its place on the bus; None for a CPU."""
        kind = find_kind(session.info.engine)
        if kind is not None and kind.needs_gpu:
            with suppress(SessionError):  # which one is not told
                return first_gpu().index
        return None

    def judge(self, session: Session) -> Agreement:
        """How far its results are from the reference's, now."""
        (contender,) = bundle_contenders(
            self.bundle,
            engines=(session.info.engine,),
            precisions=(Precision(session.info.precision),),
            threads=self.threads,
        )
        return judged(session, contender, self.bundle)


def refusal(agreement: Agreement, engine: BundleEngine) -> str | None:
    """Why a speed may not be told; None where it may, or where the user allows it."""
    return None if engine.allow_unqualified else why_no_speed(agreement)


def engine_facts(session: Session, agreement: Agreement) -> dict[str, Any]:
    """Facts of a row: the engine, and with "unqualified" why its speed counts for nothing."""
    unqualified = session.info.unqualified or why_no_speed(agreement)
    more = {} if unqualified is None else {"unqualified": unqualified}
    return {"engine": asdict(session.info), **more}
