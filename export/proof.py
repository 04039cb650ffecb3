"""Proof of a new bundle: what this machine can run or build of it is, and compared."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import ExportError, MissingExtraError, SessionError
from sshr_deploy.export.graph.timing import time_until_told_apart
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.building.from_onnx import BuildOptions, build_engine
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kind import EngineKind
from sshr_deploy.runtime.engines.kinds import KINDS, ONNX_CPU, default_batch
from sshr_deploy.runtime.machine.gpus import first_gpu
from sshr_deploy.runtime.machine.spread import quartiles_text
from sshr_deploy.runtime.progress import OnStep
from sshr_deploy.runtime.sessions.tensorrt.library import Library
from sshr_deploy.runtime.settings import OpenOptions

_TRIAL_BATCH = 1
_ROUNDS = 30


def prove_here(bundle: Bundle, on_step: OnStep) -> None:
    """Qualify what this processor runs, and build the engines that the bundle is for.

    With a GPU the engines are built, qualified and kept in the bundle, as the runtime does it; 8
    bits have to be faster than FP16 there. Without one that the library takes, TensorRT-RTX still
    builds them, which shows that it takes the graphs in the types they have.

    Raises:
        ExportError: an engine cannot be built, has layers of another type, or is slower in 8 bits.
        SessionError: an engine does not run, or does not equal the reference.
    """
    _prove(bundle, on_step)
    if bundle.manifest.fields is not None:
        _prove(bundle.on_fields(), on_step)


def _prove(bundle: Bundle, on_step: OnStep) -> None:
    for artifact in bundle.artifacts(ONNX_CPU.name):
        open_session(bundle, ONNX_CPU.name, OpenOptions(artifact.precision)).close()
    for kind in KINDS:
        if kind.library is None or not bundle.artifacts(kind.name):
            continue
        why_not = _why_no_engine(kind)
        try:
            if why_not is None:
                _build_and_prove(bundle, kind.name, on_step)
                continue
            on_step(f"no {kind.name} engine kept: {why_not}")
            if kind.library.builds_without_gpu:
                _build_on_trial(bundle, kind.name, kind.library, on_step)
        except MissingExtraError as error:
            on_step(f"no {kind.name} engine built: {error}")


def _why_no_engine(kind: EngineKind) -> str | None:
    """Why no engine can be run on this machine's GPU; None where it may."""
    try:
        gpu = first_gpu()
    except SessionError as error:
        return str(error)
    return None if kind.refuses is None else kind.refuses(gpu.name, gpu.sm)


def _build_and_prove(bundle: Bundle, engine: str, on_step: OnStep) -> None:
    with ExitStack() as stack:
        sessions: dict[Precision, Session] = {}
        for artifact in bundle.artifacts(engine):
            options = OpenOptions(artifact.precision)
            session = open_session(bundle, engine, options, on_step=on_step)
            sessions[artifact.precision] = stack.enter_context(session)
        check_int8_faster(sessions, engine)


def check_int8_faster(sessions: dict[Precision, Session], engine: str) -> None:
    """Time 8 bits against FP16, or FP32 where there is no FP16, in the smallest and largest batch.

    Raises:
        ExportError: 8 bits are not clearly faster in both.
    """
    wide = Precision.FP16 if Precision.FP16 in sessions else Precision.FP32
    if Precision.INT8 not in sessions or wide not in sessions:
        return
    pair = [sessions[wide], sessions[Precision.INT8]]
    for batch in (1, default_batch(engine, pair[0].geometry)):
        wide_calls, int8_calls = time_until_told_apart(pair, rounds=_ROUNDS, batch=batch)
        if not int8_calls.below(wide_calls):
            clearly = "" if wide_calls.below(int8_calls) else "clearly "
            raise ExportError(
                f"INT8 is not {clearly}faster with {engine} here at batch {batch}: "
                f"{quartiles_text(int8_calls)} a call, {wide} takes {quartiles_text(wide_calls)}; "
                + (
                    "export without `precision` int8"
                    if wide_calls.below(int8_calls)
                    else "export again when the machine is quiet, or without `precision` int8"
                )
            )


def _build_on_trial(bundle: Bundle, engine: str, library: Library, on_step: OnStep) -> None:
    for artifact in bundle.artifacts(engine):
        wide = artifact.quantisation.wide_nodes if artifact.quantisation else ()
        with tempfile.TemporaryDirectory() as folder:
            report = build_engine(
                bundle.file(artifact.file),
                Path(folder) / "engine.plan",
                library=library,
                precision=artifact.precision,
                options=BuildOptions(batches=(_TRIAL_BATCH,)),
                on_progress=lambda *_: None,
                wider=frozenset(wide),
            )
        types = ", ".join(f"{count} {name}" for name, count in report.layers.items())
        on_step(
            f"{report.library} builds the {artifact.precision.upper()} graph (convolutions: "
            f"{types}); the engine itself is built and compared on the machine with the GPU"
        )
