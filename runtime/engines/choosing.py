"""Opens the engine that a user named, or the fastest that works here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import (
    ExportError,
    KernelError,
    MissingExtraError,
    OutputError,
    SessionError,
    UsageError,
)
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.candidate import Candidate, candidates_for
from sshr_deploy.runtime.engines.kinds import AUTO, ENGINES, KINDS
from sshr_deploy.runtime.engines.opening import Opener
from sshr_deploy.runtime.engines.reasons import (
    Failure,
    all_reasons,
    nothing_fits,
    reasons_by_engine,
    why_not_exported,
)
from sshr_deploy.runtime.progress import OnStep, tell_nobody
from sshr_deploy.runtime.settings import OpenOptions

_NOT_HERE = (SessionError, MissingExtraError, KernelError, ExportError, OutputError)
"""Errors that make "auto" go on to the next engine."""


def open_session(
    bundle: Bundle,
    engine: str = AUTO,
    options: OpenOptions | None = None,
    *,
    on_step: OnStep = tell_nobody,
) -> Session:
    """Open `bundle` with the named engine, or with the fastest that works here ("auto").

    What this machine has not yet is built, compared with the reference and kept in the bundle's
    folder `engines`; `on_step` is told. The session's `info.rejected` says why each faster
    engine, or faster precision of one, was not taken.

    Raises:
        UsageError: no engine of that name, or the bundle has nothing for it in that precision.
        SessionError, MissingExtraError, ExportError: the engine (or, for "auto", every engine)
            cannot be opened or built, or is not proven here.
        BundleError: the bundle's reference set is broken.
    """
    if engine not in (AUTO, *ENGINES):
        raise UsageError(f"no engine named {engine!r}; choose {AUTO}, {', '.join(ENGINES)}")
    options, is_auto = options or OpenOptions(), engine == AUTO
    kinds = [kind for kind in KINDS if kind.name == engine or (is_auto and kind.is_considered)]
    by_kind = {kind.name: candidates_for(bundle, kind, options.precision) for kind in kinds}
    candidates = [candidate for found in by_kind.values() for candidate in found]
    if not candidates:
        raise UsageError(nothing_fits(bundle, engine, options.precision))
    # What is proven comes before what is only allowed.
    failures: list[Failure] = []
    for allowed in (False, True) if options.allow_unqualified else (False,):
        opener = Opener(bundle, replace(options, allow_unqualified=allowed), on_step)
        session, failures = _first_that_opens(opener, candidates, is_auto)
        if session is None:
            continue
        taken = session.info.engine
        rejected = reasons_by_engine(failures, taken)
        if is_auto:
            faster = kinds[: list(by_kind).index(taken)]
            missing = [kind for kind in faster if not by_kind[kind.name]]
            rejected = {kind.name: why_not_exported(bundle, kind) for kind in missing} | rejected
        session.info = replace(session.info, rejected=rejected)
        return session
    if len(failures) == 1:
        raise failures[0].error
    reasons = all_reasons(failures)
    raise SessionError(f"no engine works here: {reasons}" if is_auto else reasons)


def _first_that_opens(
    opener: Opener, candidates: Sequence[Candidate], is_auto: bool
) -> tuple[Session | None, list[Failure]]:
    """The first candidate that opens, and why those before it did not."""
    failures: list[Failure] = []
    for candidate in candidates:
        rival = candidate.kind.graphs_of
        try:
            if not is_auto or rival is None:
                return opener.open(candidate), failures
            rivals = [str(other) for other in candidates if other.kind.name == rival]
            return opener.open_if_faster(candidate, rivals), failures
        except _NOT_HERE as error:
            failures.append(Failure(candidate, error))
    return None, failures
