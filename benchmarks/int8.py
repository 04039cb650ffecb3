"""A network in FP32 and INT8 on this processor (`sshr-deploy benchmark int8`).

Four ways in turns: the plain PyTorch network, its FP32 graph, the graph with every convolution in 8
bits, and the one that keeps some wide. Beside each time stands how far it is from PyTorch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from sshr_deploy.benchmarks.contenders.judging import agreement_of, why_no_speed
from sshr_deploy.benchmarks.measuring.turns import take_turns
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Agreement, Row, Subject
from sshr_deploy.bundle import file_entry
from sshr_deploy.errors import UsageError
from sshr_deploy.export.graph.conv_layers import conv_layers
from sshr_deploy.export.graph.onnx_from_network import flop_per_input, write_onnx
from sshr_deploy.export.int8.activation_ranges import RangeMethod, histograms, layer_ranges
from sshr_deploy.export.int8.qdq_from_onnx import QdqKind, QdqScheme, write_qdq
from sshr_deploy.export.job import MODEL_NAME
from sshr_deploy.export.reference import PatchSet, reference_from
from sshr_deploy.geometry import PATCH, PATCH_PX
from sshr_deploy.manifest import Qualification
from sshr_deploy.model import SSHR
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.qualification import TOLERANCES, qualify
from sshr_deploy.runtime.machine.spread import spread_of
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.progress import OnStep
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from sshr_deploy.train.model_session import ModelSession

BASES = ("fp32", "pytorch")
"""Ways that the others are compared with: figures "times_fp32" and "times_pytorch"."""


@dataclass(frozen=True)
class Int8Settings:
    """Of one measurement."""

    keep: tuple[str, ...] = ()
    """Layers of the mix that stay FP32, such as "b2.conv_branch2a"."""
    weight_bits: int = 8
    """7 for processors without VNNI."""
    ranges: RangeMethod = RangeMethod.MSE
    seconds: float = 10.0
    """Measuring time of each way."""
    threads: int | None = None
    """Of the processor; None chooses by width and cores."""
    allow_unqualified: bool = False
    """Time ways whose masks miss their bounds, too."""

    @property
    def scheme(self) -> QdqScheme:
        """Of the graphs in 8 bits."""
        return QdqScheme(QdqKind.U8S8, self.weight_bits)


@dataclass
class _Way:
    """A session with what was found of it."""

    session: Session
    precision: Precision
    found: Qualification
    samples_ms: list[float]

    @property
    def agreement(self) -> Agreement:
        return agreement_of(self.found, TOLERANCES[self.precision], PATCH)


def checkpoint_subject(checkpoint: Path, model: SSHR, profile: Profile) -> Subject:
    """The subject of a document about the network `model` of a file."""
    return Subject(
        profile=profile.name,
        width=model.config.width,
        gflop_per_patch=flop_per_input(model) / 1e9,
        manifest_sha256=None,
        files_sha256={checkpoint.name: file_entry(checkpoint).sha256},
    )


def measure_int8(
    model: SSHR,
    profile: Profile,
    patches: PatchSet,
    settings: Int8Settings,
    recorder: Recorder,
    on_step: OnStep,
) -> None:
    """Compare the masks of the four ways, and time a patch (batch 1) in each: a row for each.

    Args:
        model: the network.
        profile: its classes.
        patches: to calibrate on and to compare on.
        settings: see there.
        recorder: gets the rows "pytorch", "fp32", "int8 everywhere" and "int8 mix".
        on_step: called with one line when the next part begins.

    Raises:
        UsageError: no layer of a name in `keep`.
    """
    threads = choose_threads(model.config.width, settings.threads)
    use_threads(threads)
    recorder.fact("threads", threads.count)
    on_step("what PyTorch makes of the patches")
    reference = reference_from(model, patches)
    recorder.fact("patches", len(reference))
    recorder.fact("source", patches.source)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        on_step("writing the graphs")
        fp32 = Path(folder) / MODEL_NAME
        write_onnx(model, fp32)
        graphs = {"fp32": fp32, **_quantised(fp32, reference.patches, settings)}
        sessions: dict[str, Session] = {"pytorch": stack.enter_context(ModelSession(model))}
        for name, graph in graphs.items():
            opened = OnnxRuntimeSession(graph, profile.num_classes)
            sessions[name] = stack.enter_context(opened)
        ways = {}
        for name, session in sessions.items():
            on_step(f"comparing {name}")
            found = qualify(session, reference, profile)
            precision = Precision.INT8 if name.startswith("int8") else Precision.FP32
            ways[name] = _Way(session, precision, found, [])
            recorder.row(_row(name, ways[name]))
        _time(ways, settings, recorder, on_step)


def _time(
    ways: Mapping[str, _Way], settings: Int8Settings, recorder: Recorder, on_step: OnStep
) -> None:
    allowed = settings.allow_unqualified
    timed = {
        name: way for name, way in ways.items() if allowed or why_no_speed(way.agreement) is None
    }
    noise = np.random.default_rng(0).integers(0, 256, (1, PATCH_PX, PATCH_PX, 3), np.uint8)
    calls = {name: partial(way.session.infer, noise) for name, way in timed.items()}
    on_step(f"timing {', '.join(timed)} in turns")
    samples_ms = {name: way.samples_ms for name, way in ways.items()}
    try:
        for name, turn in take_turns(calls, seconds=settings.seconds):
            timed[name].samples_ms += turn
            recorder.row(_row(name, timed[name]))
    finally:  # after Ctrl-C too
        for name in timed:
            if samples_ms[name]:
                recorder.row(with_ratios(_row(name, timed[name]), samples_ms, recorder))


def _row(name: str, way: _Way) -> Row:
    """With what was measured so far, and no ratios."""
    measured, why = bool(way.samples_ms), why_no_speed(way.agreement)
    return Row(
        name=name,
        unit="ms",
        better="lower",
        samples=tuple(way.samples_ms),
        not_measured=None if measured else why or "stopped before it was timed",
        agreement=way.agreement,
        figures=dict(spread_of(way.samples_ms).figures()) if measured else {},
        facts={
            "precision": way.precision.value,
            "qualification": way.found.model_dump(mode="json"),
            **({"unqualified": why} if measured and why else {}),
        },
    )


def with_ratios(row: Row, samples_ms: Mapping[str, Sequence[float]], recorder: Recorder) -> Row:
    """How many times as fast as each of `BASES` the way of a row is; see `Recorder.ratio`.

    `samples_ms` are those of all ways by name.
    """
    figures, refused = dict(row.figures), dict(row.refused)
    for base in BASES:
        name = f"times_{base}"
        if row.name == base:
            figures[name] = 1.0
            continue
        figures[name], why = _ratio(base, row, samples_ms, recorder)
        if why is not None:
            refused[name] = why
    return row.model_copy(update={"figures": figures, "refused": refused})


def _ratio(
    base: str, row: Row, samples_ms: Mapping[str, Sequence[float]], recorder: Recorder
) -> tuple[float | None, str | None]:
    if "unqualified" in row.facts:
        return None, f"{row.name}: {row.facts['unqualified']}"
    if not samples_ms[base]:
        return None, f"{base} was not measured"
    ratio = recorder.ratio((base, samples_ms[base]), (row.name, row.samples))
    return ratio.value, ratio.refused


def _quantised(fp32: Path, patches: NDArray[np.uint8], settings: Int8Settings) -> dict[str, Path]:
    keep, scheme = settings.keep, settings.scheme
    layers = conv_layers(onnx.load(fp32, load_external_data=False).graph)
    names = [layer.name for layer in layers]
    if unknown := sorted(set(keep) - set(names)):
        raise UsageError(f"`keep` {unknown[0]}: no such layer; there are {', '.join(names)}")
    tensors = [tensor for layer in layers for tensor in (layer.input, layer.output)]
    found = histograms(fp32, tensors, patches, lambda *_: None)
    ranges = layer_ranges(
        found, layers, settings.ranges, levels=scheme.levels, symmetric=scheme.symmetric
    )
    choices = {"int8 everywhere": names}
    if keep:
        choices["int8 mix"] = [name for name in names if name not in keep]
    graphs = {}
    for choice, chosen in choices.items():
        graphs[choice] = fp32.with_name(f"{choice.replace(' ', '-')}.onnx")
        write_qdq(fp32, graphs[choice], chosen, ranges, scheme)
    return graphs
