"""Sessions: one file an engine kind, one contract (`session.Session`)."""

from __future__ import annotations

from dataclasses import replace

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SessionError, UsageError
from sshr_deploy.runtime.sessions.onnxruntime import OnnxRuntimeSession
from sshr_deploy.runtime.sessions.session import (
    CAM_NAMES,
    INPUT_NAME,
    OUTPUT_NAMES,
    PATCH_PX,
    CamBatch,
    Session,
    SessionInfo,
)
from sshr_deploy.runtime.settings import EngineChoice

ENGINES = tuple(choice.value for choice in EngineChoice if choice is not EngineChoice.AUTO)
"""Engine names, the faster first; "auto" takes the first that works."""

__all__ = [
    "CAM_NAMES",
    "ENGINES",
    "INPUT_NAME",
    "OUTPUT_NAMES",
    "PATCH_PX",
    "CamBatch",
    "Session",
    "SessionInfo",
    "open_session",
]


def open_session(bundle: Bundle, engine: str = "auto") -> Session:
    """Open `bundle` with the named engine, or with the fastest that works here ("auto").

    The session's `info.rejected` says why each faster engine was not taken.

    Raises:
        UsageError: no engine of that name.
        SessionError: the engine (or, for "auto", every engine) cannot be opened.
    """
    if engine != "auto" and engine not in ENGINES:
        raise UsageError(f"no engine named {engine!r}; choose auto, {', '.join(ENGINES)}")
    if engine != "auto":
        return _open(bundle, engine)
    rejected: dict[str, str] = {}
    for name in ENGINES:
        try:
            session = _open(bundle, name)
        except SessionError as error:
            rejected[name] = str(error)
            continue
        session.info = replace(session.info, rejected=rejected)
        return session
    raise SessionError(
        "no engine works here: " + "; ".join(f"{k}: {v}" for k, v in rejected.items())
    )


def _open(bundle: Bundle, engine: str) -> OnnxRuntimeSession:
    artifact = bundle.artifact("onnx")
    return OnnxRuntimeSession(
        bundle.file(artifact.file),
        bundle.manifest.profile.num_classes,
        engine=engine,
        precision=artifact.precision,
    )
