"""`onnx-cuda` as it ships, from patches on the host to label maps there.

The graphs of a network with random weights are written on the spot and opened with the provider's
own options and with those that machines try. Masks and CAMs are held against PyTorch in FP32 on the
processor; no time is reported of what is too far from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import sshr_deploy.export
from sshr_deploy.benchmarks.gpu.network import GFLOP_A_PATCH, random_network
from sshr_deploy.benchmarks.measuring.gpu_timing import OnRow
from sshr_deploy.benchmarks.measuring.turns import take_turns
from sshr_deploy.errors import MissingExtraError, SshrDeployError, first_line
from sshr_deploy.export.graph.deploy import HfrmForm
from sshr_deploy.export.graph.onnx_from_network import write_onnx
from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.model import SSHR, predict
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.runtime.contract import PATCH_PX, CamBatch, Session
from sshr_deploy.runtime.engines.kinds import ONNX_CUDA
from sshr_deploy.runtime.engines.qualification import qualify
from sshr_deploy.runtime.engines.reference import ReferenceSet
from sshr_deploy.runtime.machine.spread import spread_of
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.progress import OnStep
from sshr_deploy.runtime.sessions.onnxruntime.cuda import OnnxRuntimeCudaSession
from sshr_deploy.runtime.sessions.onnxruntime.providers import Provider
from sshr_deploy.runtime.sessions.onnxruntime.session import import_onnxruntime

BATCHES = (32, 8, 1)
BOUNDS = {Precision.FP16: 6e-2, Precision.FP32: 1e-4}
"""Largest relative RMS error of a CAM; see `network` for FP16 with random weights."""
_PROFILE = "bcss"  # four classes, as the random network has
_SETTLE_S = 0.3
"""Uncounted calls at the beginning of a turn."""
_STREAMED = 8  # batches in a row, as those of a slide are


@dataclass(frozen=True)
class Graphs:
    """Graphs of one network by precision, and what they should give."""

    paths: Mapping[Precision, Path]
    reference: ReferenceSet
    profile: Profile
    gflop_per_patch: float | None
    """None where nobody counted."""


def write_graphs(folder: Path, on_step: OnStep, width: int = 64) -> Graphs:
    """The graphs for GPUs of a network with random weights; 0.7 GB in `folder` at width 64."""
    import torch

    model = random_network(width, torch.device("cpu"))
    paths = {precision: folder / f"{precision}.onnx" for precision in BOUNDS}
    on_step(f"sessions: writing the FP32 graph of width {width}")
    write_onnx(model, paths[Precision.FP32], form=HfrmForm.SEPARABLE)
    on_step("sessions: writing it in FP16, and what PyTorch makes of the patches")
    write_typed_graph(paths[Precision.FP32], paths[Precision.FP16], Precision.FP16)
    counted = GFLOP_A_PATCH if width == 64 else None
    return Graphs(paths, _reference(model), load_profile(_PROFILE), counted)


def _reference(model: SSHR) -> ReferenceSet:
    """Corners of the crops that come with the package; read here, as no slide library is needed."""
    files = sorted((Path(sshr_deploy.export.__file__).parent / "qualification").glob("*.png"))
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    patches = np.stack([image[:PATCH_PX, :PATCH_PX] for image in images])
    cams = CamBatch(*predict(model, patches))
    sizes_px = np.full((len(patches), 2), PATCH_PX)
    return ReferenceSet(patches, sizes_px, cams, "PyTorch FP32, plain HFRM", "crops, cut")


def check_provider(provider: Provider) -> None:
    """Check that this onnxruntime has the provider.

    Raises:
        MissingExtraError: it is the one for processors, or there is none.
    """
    if provider.name not in import_onnxruntime().get_available_providers():
        raise MissingExtraError("onnxruntime-gpu", provider.extra)


def measure_sessions(
    graphs: Graphs,
    *,
    provider: Provider,
    batches: Sequence[int] = BATCHES,
    seconds: float = 1.0,
    on_step: OnStep = print,
    on_row: OnRow,
) -> None:
    """Times by precision, the provider's options and batch size.

    A row has the time of a call alone ("median_ms") and of a batch among others ("stream_ms"), from
    which the patches a second are. Where a session does not open or is wrong, its row has the
    reason as "failed" instead.

    Args:
        graphs: of `write_graphs`.
        provider: of ONNX Runtime.
        batches: sizes in patches.
        seconds: measuring time for each figure, in s.
        on_step: called with one line when the next session is opened.
        on_row: called with each row.
    """
    for precision, path in graphs.paths.items():
        for options in ({}, dict(provider.on_trial)) if provider.on_trial else ({},):
            tried = (f"{key}={value}" for key, value in options.items())
            name = " ".join((ONNX_CUDA.name, precision.value, *tried))
            row: dict[str, Any] = {"form": name, "precision": precision.value}
            on_step(f"sessions: {name}")
            try:
                with OnnxRuntimeCudaSession(
                    path,
                    graphs.profile.num_classes,
                    engine=ONNX_CUDA.name,
                    provider=provider,
                    precision=precision.value,
                    batch=max(batches),
                    more_options=options,
                ) as session:
                    row |= _checked(session, graphs, BOUNDS[precision])
                    for batch in batches:
                        on_row(row | _figures(session, graphs, batch, seconds))
            except SshrDeployError as error:
                on_row(row | {"failed": first_line(error)})


def _checked(session: Session, graphs: Graphs, bound: float) -> dict[str, Any]:
    """How far the session is from PyTorch, and what it says of itself.

    Raises:
        SshrDeployError: too far.
    """
    found = qualify(session, graphs.reference, graphs.profile)
    error = max(found.cam_relative_error.values())
    if not error <= bound:
        raise SshrDeployError(
            f"CAMs differ from PyTorch by {error:.1e}, allowed {bound:.0e}; no speed is reported"
        )
    return {
        "library": session.info.library,
        "notes": list(session.info.notes),
        "labels_on_device": session.labels_on_device,
        "cam_relative_error": error,
        "mask_agreement": found.mask_agreement,
    }


def _figures(session: Session, graphs: Graphs, batch: int, seconds: float) -> dict[str, Any]:
    size = (batch, PATCH_PX, PATCH_PX, 3)
    patches = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    rule = mask_rule(graphs.profile)

    def stream(count: int) -> None:
        for _ in session.stream(((None, patches) for _ in range(count)), rule):
            pass

    samples: dict[str, list[float]] = {"alone": [], "row": []}
    calls = {"alone": lambda: stream(1), "row": lambda: stream(_STREAMED)}
    for name, turn in take_turns(calls, seconds=seconds, settle_s=_SETTLE_S):
        samples[name] += turn
    alone, row = samples["alone"], [ms / _STREAMED for ms in samples["row"]]
    rate = batch / spread_of(row).median_ms * 1e3
    counted = graphs.gflop_per_patch
    return {
        "batch": batch,
        **spread_of(alone).figures(),
        "samples_ms": alone,
        "stream_ms": spread_of(row).median_ms,
        "stream_samples_ms": row,
        "patches_per_s": rate,
        **({} if counted is None else {"tflop_per_s": rate * counted / 1e3}),
    }
