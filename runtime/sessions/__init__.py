"""Sessions: one file an engine kind, one contract (`session.Session`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import ExportError, KernelError, MissingExtraError, SessionError, UsageError
from sshr_deploy.manifest import Artifact
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engine_key import PlanBuilder
from sshr_deploy.runtime.sessions.session import (
    CAM_NAMES,
    INPUT_NAME,
    OUTPUT_NAMES,
    PATCH_PX,
    CamBatch,
    MaskBatch,
    MaskRule,
    Session,
    SessionInfo,
)
from sshr_deploy.runtime.settings import EngineChoice, OpenOptions

ENGINES = tuple(choice.value for choice in EngineChoice if choice is not EngineChoice.AUTO)
"""Engine names, the faster first; "auto" takes the first that works."""

_NARROW_FIRST = (Precision.INT8, Precision.FP16, Precision.BF16, Precision.FP32)
_PREFERRED = {
    # Quantised convolutions run as floating point there, slower than without quantisation.
    "onnx-cuda": (Precision.FP16, Precision.BF16, Precision.FP32),
    # x86 has no FP16 arithmetic to speak of: ONNX Runtime converts back and forth.
    "onnx-cpu": (Precision.INT8, Precision.FP32),
}
"""Precisions that are taken unless one is asked for, the faster first."""

__all__ = [
    "CAM_NAMES",
    "ENGINES",
    "INPUT_NAME",
    "OUTPUT_NAMES",
    "PATCH_PX",
    "CamBatch",
    "MaskBatch",
    "MaskRule",
    "OpenOptions",
    "Session",
    "SessionInfo",
    "open_session",
]


def open_session(
    bundle: Bundle,
    engine: str = "auto",
    options: OpenOptions | None = None,
    *,
    builder: PlanBuilder | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Session:
    """Open `bundle` with the named engine, or with the fastest that works here ("auto").

    What this machine has not yet is built by `builder`, compared with the reference and kept in the
    bundle's folder `engines`; `say` is told. The session's `info.rejected` says why each faster
    engine, or faster precision of one, was not taken.

    Raises:
        UsageError: no engine of that name, or the bundle has nothing for it in that precision.
        SessionError, MissingExtraError, ExportError: the engine (or, for "auto", every engine)
            cannot be opened or built, or is not proven here.
        BundleError: the bundle's reference set is broken.
    """
    from sshr_deploy.runtime.sessions.opening import Opener  # which needs what needs this package

    if engine != "auto" and engine not in ENGINES:
        raise UsageError(f"no engine named {engine!r}; choose auto, {', '.join(ENGINES)}")
    options = options or OpenOptions()
    opener = Opener(bundle, options, builder, say)
    candidates = [
        (name, artifact)
        for name in (ENGINES if engine == "auto" else (engine,))
        for artifact in _artifacts(bundle, name, options.precision)
    ]
    if not candidates:
        raise UsageError(_nothing_fits(bundle, engine, options.precision))
    failures: list[tuple[str, Artifact, str]] = []
    for name, artifact in candidates:
        try:
            session = opener.open(name, artifact)
        except (SessionError, MissingExtraError, KernelError, ExportError) as error:
            if len(candidates) == 1:
                raise
            reason = str(error).removeprefix(f"{name} {artifact.precision}: ")
            failures.append((name, artifact, reason))
            continue
        rejected = _rejected(failures)
        if engine == "auto":
            faster = [item for item in ENGINES[: ENGINES.index(name)] if not bundle.artifacts(item)]
            rejected = {item: _not_exported(item) for item in faster} | rejected
        session.info = replace(session.info, rejected=rejected)
        return session
    reasons = "; ".join(f"{name}: {why}" for name, why in _rejected(failures).items())
    raise SessionError(f"no engine works here: {reasons}" if engine == "auto" else reasons)


def _artifacts(bundle: Bundle, engine: str, precision: Precision | None) -> list[Artifact]:
    """What `engine` would run, the faster first."""
    there = {artifact.precision: artifact for artifact in bundle.artifacts(engine)}
    wanted = _PREFERRED.get(engine, _NARROW_FIRST) if precision is None else (precision,)
    return [there[item] for item in wanted if item in there]


def _rejected(failures: Sequence[tuple[str, Artifact, str]]) -> dict[str, str]:
    """Reasons by engine; by engine and precision where the precisions of an engine differ in it."""
    said: dict[str, dict[str, str]] = {}
    for engine, artifact, reason in failures:
        said.setdefault(engine, {})[artifact.precision] = reason
    rejected: dict[str, str] = {}
    for engine, reasons in said.items():
        if len(set(reasons.values())) == 1:
            rejected[engine] = next(iter(reasons.values()))
        else:
            rejected |= {f"{engine} {precision}": why for precision, why in reasons.items()}
    return rejected


def _not_exported(engine: str) -> str:
    target = engine.replace("onnx-", "tensorrt-" if engine == "onnx-rtx" else "")
    return f"the bundle has no artefact for it; export it with --engine {target}"


def _nothing_fits(bundle: Bundle, engine: str, precision: Precision | None) -> str:
    there = {
        f"{artifact.precision} for {', '.join(artifact.engines)}"
        for artifact in bundle.manifest.artifacts
    }
    asked = engine if precision is None else f"{precision} for {engine}"
    return f"{bundle.path} has no {asked}; it has {'; '.join(sorted(there))}"
