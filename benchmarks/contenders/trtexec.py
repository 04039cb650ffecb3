"""TensorRT's own benchmark program, where it is on the PATH: the engine alone, without label maps.

It builds an engine of the bundle's graph, computes the reference's patches, so that its outputs are
compared as all others are, and times calls with both copies. What it prints is not read but for the
reason of a failure; times and outputs come in files (`--exportTimes`, `--exportOutput`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.contenders.judging import agreement_of, reference_of, why_no_speed
from sshr_deploy.benchmarks.report.records import Agreement, Row
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SessionError, SshrDeployError, first_line
from sshr_deploy.manifest import Artifact
from sshr_deploy.runtime.contract import INPUT_NAME, OUTPUT_NAMES, CamBatch, SessionInfo
from sshr_deploy.runtime.engines.kinds import TENSORRT
from sshr_deploy.runtime.engines.qualification import qualify
from sshr_deploy.runtime.machine.child_process import run_child
from sshr_deploy.runtime.machine.gpus import find_gpus
from sshr_deploy.runtime.machine.spread import spread_of
from sshr_deploy.runtime.sessions.base import BaseSession, output_shape

PROGRAM = "trtexec"
_TIMEOUT_S = 3600.0
"""Building an engine takes minutes."""
_WARM_UP_MS = 500
_PARTS = {"copy_in_ms": "h2dMs", "engine_ms": "computeMs", "copy_out_ms": "d2hMs"}


def trtexec_peers(bundle: Bundle) -> list[TrtexecPeer]:
    """One for each precision that the bundle has for TensorRT; none where trtexec is not there."""
    program = shutil.which(PROGRAM)
    if program is None or not bundle.geometry.is_patch:
        return []
    there = {artifact.precision: artifact for artifact in bundle.artifacts(TENSORRT.name)}
    found = (there[precision] for precision in TENSORRT.precisions if precision in there)
    return [TrtexecPeer(program, bundle, artifact) for artifact in found]


@dataclass(frozen=True)
class TrtexecPeer:
    """trtexec on one graph of a bundle."""

    program: str
    bundle: Bundle
    artifact: Artifact

    @property
    def name(self) -> str:
        """ "trtexec fp16"."""
        return f"{PROGRAM} {self.artifact.precision}"

    def measure(self, batch: int, seconds: float, *, allow_unqualified: bool = False) -> Row:
        """Its row, "trtexec fp16, batch 8", with a sample for each call of `batch` patches, in ms.

        It cannot take turns with others: the machine has to be quiet.

        Args:
            batch: patches in a call; its engine is built for it.
            seconds: measuring time, in s.
            allow_unqualified: tell the speed although the masks disagree.
        """
        facts = {
            "engine": self.name,
            "batch": batch,
            "covers": "both copies and the engine; no label maps; a CUDA graph; not in turns",
        }
        row = Row(name=f"{self.name}, batch {batch}", unit="ms", better="lower", samples=())
        try:
            with TrtexecSession(self, batch) as session:
                agreement = self._judged(session)
                why = why_no_speed(agreement)
                if why is not None and not allow_unqualified:
                    return _with(row, agreement=agreement, not_measured=why, facts=facts)
                calls = session.timed(seconds)
        except SshrDeployError as error:
            return _with(row, not_measured=first_line(error), facts=facts)
        samples = tuple(float(call["latencyMs"]) for call in calls)
        parts = {name: float(np.median([c[key] for c in calls])) for name, key in _PARTS.items()}
        return _with(
            row,
            samples=samples,
            agreement=agreement,
            figures={**spread_of(samples).figures(), **parts},
            facts=facts if why is None else {**facts, "unqualified": why},
        )

    def _judged(self, session: TrtexecSession) -> Agreement:
        profile, size = self.bundle.manifest.profile, session.batch
        found = qualify(session, reference_of(self.bundle), profile, passes=((size,),), fill=True)
        return agreement_of(found, self.artifact.tolerance, self.bundle.geometry)


class TrtexecSession(BaseSession):
    """Computes calls of `batch` patches, each by a process of its own that loads the engine.

    Raises:
        SessionError: there is no GPU, or trtexec cannot build the engine.
    """

    def __init__(self, peer: TrtexecPeer, batch: int) -> None:
        gpus = find_gpus()
        self.batch = batch
        self._peer = peer
        self._folder = tempfile.TemporaryDirectory(prefix="sshr-trtexec-")
        self.info = SessionInfo(
            engine=peer.name,
            precision=peer.artifact.precision,
            device=gpus[0].name if gpus else "an unknown GPU",
            library=PROGRAM,
        )
        shape = "x".join(map(str, (batch, *self.geometry.input_shape())))
        self._shapes = f"--shapes={INPUT_NAME}:{shape}"
        try:
            # The bundle's graphs are typed, as the product's own build takes them.
            graph = peer.bundle.file(peer.artifact.file)
            self._run(
                f"--onnx={graph}",
                f"--saveEngine={self._file('engine.plan')}",
                "--stronglyTyped",
                "--noTF32",
                "--skipInference",
            )
        except BaseException:
            self.close()
            raise

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        self._file("patches.bin").write_bytes(patches.tobytes())
        self._run(
            f"--loadEngine={self._file('engine.plan')}",
            f"--loadInputs={INPUT_NAME}:{self._file('patches.bin')}",
            f"--exportOutput={self._file('outputs.json')}",
            *("--iterations=1", "--duration=0", "--warmUp=0"),
        )
        found = {output["name"]: output["values"] for output in self._read("outputs.json")}
        classes = self._peer.bundle.manifest.profile.num_classes
        try:
            return CamBatch(
                *(
                    np.array(found[name], np.float32).reshape(
                        len(patches), *output_shape(name, classes, self.geometry)
                    )
                    for name in OUTPUT_NAMES
                )
            )
        except (KeyError, ValueError) as error:
            raise SessionError(f"{PROGRAM} wrote other outputs than SSHR's: {error}") from error

    def timed(self, seconds: float) -> list[dict[str, Any]]:
        """Calls after the warm-up: what `--exportTimes` says of each."""
        self._run(
            f"--loadEngine={self._file('engine.plan')}",
            f"--exportTimes={self._file('times.json')}",
            *(f"--duration={seconds:g}", f"--warmUp={_WARM_UP_MS}"),
            *("--useCudaGraph", "--useSpinWait"),
        )
        calls = self._read("times.json")
        first = calls[0]["startComputeMs"] if calls else 0.0
        warm = [call for call in calls if call["startComputeMs"] - first >= _WARM_UP_MS]
        if not warm:
            raise SessionError(f"{PROGRAM} timed no call after {_WARM_UP_MS} ms; measure longer")
        return warm

    def close(self) -> None:
        """Remove the engine and all files."""
        self._folder.cleanup()

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _read(self, name: str) -> Any:
        try:
            return json.loads(self._file(name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise SessionError(f"{PROGRAM} wrote no {name}: {first_line(error)}") from error

    def _run(self, *options: str) -> None:
        try:
            code, out, err = run_child([self._peer.program, *options, self._shapes], _TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SessionError(f"{PROGRAM} cannot be run: {first_line(error)}") from error
        if code:
            said = [line for line in (out + err).splitlines() if "[E]" in line]
            reason = said[0].partition("[E]")[2].strip() if said else f"it ended with {code}"
            raise SessionError(f"{PROGRAM} failed: {reason}")


def _with(row: Row, **changes: Any) -> Row:
    return row.model_copy(update=changes)
