"""Opens the engine that a user named, or the fastest that works here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import (
    ExportError,
    KernelError,
    MissingExtraError,
    OutputError,
    SessionError,
    SshrDeployError,
    UsageError,
)
from sshr_deploy.manifest import Artifact
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import (
    Session,
)
from sshr_deploy.runtime.engines.kind import EngineKind
from sshr_deploy.runtime.engines.kinds import AUTO, ENGINES, KINDS
from sshr_deploy.runtime.engines.opening import Opener
from sshr_deploy.runtime.progress import OnStep
from sshr_deploy.runtime.settings import OpenOptions

_NOT_HERE = (SessionError, MissingExtraError, KernelError, ExportError, OutputError)
"""What makes "auto" go on to the next engine."""


def open_session(
    bundle: Bundle,
    engine: str = "auto",
    options: OpenOptions | None = None,
    *,
    on_step: OnStep = lambda _: None,
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
    kinds = [kind for kind in KINDS if engine in (AUTO, kind.name)]
    if not kinds:
        raise UsageError(f"no engine named {engine!r}; choose {AUTO}, {', '.join(ENGINES)}")
    options = options or OpenOptions()
    candidates = [
        (kind, artifact)
        for kind in kinds
        for artifact in _artifacts(bundle, kind, options.precision)
    ]
    if not candidates:
        raise UsageError(_nothing_fits(bundle, engine, options.precision))
    # What is proven comes before what is only allowed.
    failures: list[_Failure] = []
    for allowed in (False, True) if options.allow_unqualified else (False,):
        opener = Opener(bundle, replace(options, allow_unqualified=allowed), on_step)
        session, failures = _first_that_opens(opener, candidates)
        if session is None:
            continue
        rejected = _rejected(failures, taken=session.info.engine)
        if engine == AUTO:
            rejected = _not_tried(bundle, session.info.engine, options.precision) | rejected
        session.info = replace(session.info, rejected=rejected)
        return session
    if len(failures) == 1:
        raise failures[0].error
    by_reason: dict[str, list[str]] = {}
    for name, why in _rejected(failures).items():
        by_reason.setdefault(why, []).append(name)
    reasons = "; ".join(f"{', '.join(names)}: {why}" for why, names in by_reason.items())
    raise SessionError(f"no engine works here: {reasons}" if engine == AUTO else reasons)


class _Failure(NamedTuple):
    engine: str
    artifact: Artifact
    error: SshrDeployError

    @property
    def reason(self) -> str:
        return str(self.error).removeprefix(f"{self.engine} {self.artifact.precision}: ")


def _first_that_opens(
    opener: Opener, candidates: Sequence[tuple[EngineKind, Artifact]]
) -> tuple[Session | None, list[_Failure]]:
    """The first candidate that opens, and why those before it did not."""
    failures: list[_Failure] = []
    for kind, artifact in candidates:
        try:
            return opener.open(kind, artifact), failures
        except _NOT_HERE as error:
            failures.append(_Failure(kind.name, artifact, error))
    return None, failures


def _artifacts(bundle: Bundle, kind: EngineKind, precision: Precision | None) -> list[Artifact]:
    """What the engine would run, the faster first."""
    there = {artifact.precision: artifact for artifact in bundle.artifacts(kind.name)}
    wanted = kind.precisions if precision is None else (precision,)
    return [there[item] for item in wanted if item in there]


def _rejected(failures: Sequence[_Failure], taken: str = "") -> dict[str, str]:
    """Reasons by engine; by engine and precision where the precisions of an engine differ in it,
    or where the engine is `taken` with another one."""
    said: dict[str, dict[str, str]] = {}
    for failure in failures:
        said.setdefault(failure.engine, {})[failure.artifact.precision] = failure.reason
    rejected: dict[str, str] = {}
    for engine, reasons in said.items():
        if engine != taken and len(set(reasons.values())) == 1:
            rejected[engine] = next(iter(reasons.values()))
        else:
            rejected |= {f"{engine} {precision}": why for precision, why in reasons.items()}
    return rejected


def _not_tried(bundle: Bundle, taken: str, precision: Precision | None) -> dict[str, str]:
    """Why the bundle had nothing for engines faster than the one that was taken."""
    faster = KINDS[: ENGINES.index(taken)]
    missing = [kind for kind in faster if not _artifacts(bundle, kind, precision)]
    return {kind.name: _not_exported(bundle, kind) for kind in missing}


def _not_exported(bundle: Bundle, kind: EngineKind) -> str:
    if there := bundle.artifacts(kind.name):
        precisions = ", ".join(artifact.precision for artifact in there)
        return f"the bundle has only {precisions} for it"
    return f"the bundle has no artefact for it; export it with --engine {kind.target}"


def _nothing_fits(bundle: Bundle, engine: str, precision: Precision | None) -> str:
    there = {
        f"{artifact.precision} for {', '.join(artifact.engines)}"
        for artifact in bundle.manifest.artifacts
    }
    asked = engine if precision is None else f"{precision} for {engine}"
    return (
        f"{bundle.path} has no {asked}; it has {'; '.join(sorted(there))}: "
        "choose among these, or export it with what is missing"
    )
