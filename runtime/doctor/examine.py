"""Looks, tries and judges."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sshr_deploy.errors import KernelError, SshrDeployError
from sshr_deploy.runtime.doctor.abilities import judge_commands, judge_engines
from sshr_deploy.runtime.doctor.conflicts import find_conflicts
from sshr_deploy.runtime.doctor.processor import look_at_machine
from sshr_deploy.runtime.doctor.report import (
    ArtifactFacts,
    BundleFacts,
    Facts,
    GpuFacts,
    Kernels,
    Report,
    SlideLook,
)
from sshr_deploy.runtime.doctor.trials import (
    EXTRA_PACKAGES,
    ORT_PACKAGES,
    TIMEOUT_S,
    try_everything,
)
from sshr_deploy.runtime.engines.kinds import KINDS
from sshr_deploy.runtime.kernels.manifest import (
    KernelManifest,
    cubins_or_reason,
    default_folder,
    load_manifest,
)
from sshr_deploy.runtime.machine.gpus import find_gpus, why_no_gpu
from sshr_deploy.runtime.machine.processor import library_versions
from sshr_deploy.version import __version__

if TYPE_CHECKING:  # it needs pydantic, which may be broken
    from sshr_deploy.bundle import Bundle
    from sshr_deploy.manifest import Artifact

_ENGINE_PACKAGES = sorted({kind.package for kind in KINDS if kind.package is not None})
LIBRARIES = (
    *ORT_PACKAGES,
    *(f"{name}{cuda}" for name in _ENGINE_PACKAGES for cuda in ("", "-cu12", "-cu13")),
    "cuda-core", "cuda-bindings", "pycuda", "torch", "triton", *EXTRA_PACKAGES,
)  # fmt: skip
"""Packages whose versions are reported."""


def examine(
    model: Path | None = None, slides: Path | None = None, *, timeout_s: float = TIMEOUT_S
) -> Report:
    """Look at this machine and try what is installed.

    Args:
        model: a bundle to verify as well.
        slides: slides to hold against what that bundle knows, if it is whole.
        timeout_s: for each trial, in seconds.

    Raises:
        UsageError: there is no slide; or the bundle does not state what its network knows.
        BundleError: the bundle's first layer cannot be used.
    """
    bundle, looks = (None, ()) if model is None else _look_at_bundle(model, slides)
    gpus, libraries = find_gpus(), library_versions(LIBRARIES)
    ort, trials = try_everything(libraries, with_gpu=bool(gpus), timeout_s=timeout_s)
    facts = Facts(
        gpus=gpus,
        no_gpu=why_no_gpu(),
        machine=look_at_machine(),
        libraries=libraries,
        onnxruntime=ort,
        trials=trials,
        environ=os.environ,
    )
    return judge(facts, bundle, looks)


def judge(
    facts: Facts, bundle: BundleFacts | None = None, slides: tuple[SlideLook, ...] = ()
) -> Report:
    """The report that follows from `facts`."""
    conflicts = find_conflicts(facts)
    engines = judge_engines(facts, conflicts)
    kernels = _kernels_by_sm({gpu.sm for gpu in facts.gpus})
    return Report(
        version=__version__,
        machine=facts.machine,
        gpus=tuple(GpuFacts(gpu, kernels[gpu.sm]) for gpu in facts.gpus),
        no_gpu=facts.no_gpu,
        libraries=facts.libraries,
        onnxruntime=facts.onnxruntime,
        engines=engines,
        commands=judge_commands(facts, engines),
        conflicts=conflicts,
        bundle=bundle,
        slides=slides,
    )


def _look_at_bundle(model: Path, slides: Path | None) -> tuple[BundleFacts, tuple[SlideLook, ...]]:
    from sshr_deploy.bundle import load_bundle

    try:
        bundle = load_bundle(model)
    except SshrDeployError as error:
        return BundleFacts(str(model), str(error), ()), ()
    if slides is None:
        return _bundle_facts(model, bundle), ()
    from sshr_deploy.runtime.doctor.slides import look_at_slides

    return _bundle_facts(model, bundle), look_at_slides(slides, bundle)


def check_bundle(path: Path) -> BundleFacts:
    """Verify the bundle at `path`."""
    return _look_at_bundle(path, None)[0]


def _bundle_facts(path: Path, bundle: Bundle) -> BundleFacts:
    fields = bundle.manifest.fields
    return BundleFacts(
        str(path),
        None,
        _artifact_facts(bundle.manifest.artifacts),
        () if fields is None else _artifact_facts(fields.artifacts),
        None if fields is None else fields.geometry.side_px,
    )


def _artifact_facts(artifacts: Iterable[Artifact]) -> tuple[ArtifactFacts, ...]:
    return tuple(
        ArtifactFacts(item.precision.value, item.file, item.engines, item.qualification is not None)
        for item in artifacts
    )


def _kernels_by_sm(sms: set[int]) -> Mapping[int, tuple[Kernels, ...]]:
    """Which precompiled kernels there are for each SM."""
    if not sms:
        return {}
    try:
        folder = default_folder()
        manifest = load_manifest(folder)
    except KernelError as error:
        return {sm: (Kernels("all", 0, 0, str(error)),) for sm in sms}
    return {
        sm: tuple(
            _kernels(manifest, folder, op, sm) for op in sorted({c.op for c in manifest.cubins})
        )
        for sm in sms
    }


def _kernels(manifest: KernelManifest, folder: Path, op: str, sm: int) -> Kernels:
    variants = {(cubin.op, cubin.variant) for cubin in manifest.cubins if cubin.op == op}
    fitting = {(c.op, c.variant) for c in manifest.cubins if c.op == op and c.runs_on(sm)}
    found = cubins_or_reason(fitting or variants, sm, folder)
    if isinstance(found, str):
        return Kernels(op, 0, len(variants), found)
    return Kernels(op, len(found), len(variants), None)
