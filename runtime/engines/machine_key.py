"""The key that an engine must have to be used on this machine."""

from __future__ import annotations

import hashlib

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import KernelError, MissingExtraError, SessionError
from sshr_deploy.runtime.contract import FieldRule, MaskRule
from sshr_deploy.runtime.cuda.opening import DEVICE_LIBRARIES
from sshr_deploy.runtime.engines.candidate import Candidate
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.engines.kind import EngineKind
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.field_labels import field_rule
from sshr_deploy.runtime.kernels.manifest import MANIFEST_NAME, default_folder
from sshr_deploy.runtime.machine.gpus import first_gpu
from sshr_deploy.runtime.machine.processor import library_versions
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.version import __version__


def machine_key(bundle: Bundle, candidate: Candidate, batch: int) -> EngineKey:
    """Key of an engine on the first GPU of this machine, or on its processor.

    Args:
        bundle: that has the artefact.
        candidate: what is to run.
        batch: the largest static batch; the smaller is 1.

    Raises:
        MissingExtraError, SessionError: the library or the GPU that the engine needs is not there.
        BundleError: the manifest does not list the reference.
    """
    kind, artifact, precision = candidate
    files = bundle.manifest.files
    bundle.file(bundle.reference_file)  # or says that the manifest does not list it
    graph = [
        files[name].sha256
        for name in sorted(files)
        if name.startswith(artifact.file) or name in artifact.weights
    ]
    gpu = first_gpu() if kind.needs_gpu else None
    is_built = kind.library is not None  # which needs a device library anyway
    launches = kind.launches_kernels and (is_built or bool(library_versions(DEVICE_LIBRARIES)))
    return EngineKey(
        engine=kind.name,
        precision=precision.value,
        inputs=bundle.geometry.inputs,
        model_sha256=hashlib.sha256("".join(graph).encode()).hexdigest(),
        reference_sha256=files[bundle.reference_file].sha256,
        batches=tuple(sorted({1, batch})) if kind.has_static_batches else (),
        library=kind.library_text(),
        device=gpu.name if gpu else kind.device(),
        sm=gpu.sm if gpu else None,
        driver=gpu.driver if gpu else None,
        sshr_deploy=__version__,
        rule=str(_rule(bundle)),
        options=_options(bundle, kind),
        kernels_sha256=_kernels_sha256() if launches else None,
    )


def _rule(bundle: Bundle) -> MaskRule | FieldRule:
    profile = bundle.manifest.profile
    return mask_rule(profile) if bundle.geometry.is_patch else field_rule(profile)


def _options(bundle: Bundle, kind: EngineKind) -> str:
    if kind.library is not None:
        return bundle.manifest.engine_options.model_dump_json()
    rival = None if kind.graphs_of is None else find_kind(kind.graphs_of)
    try:
        return "" if rival is None else f"timed against {rival.library_text()}"
    except (MissingExtraError, SessionError):
        return ""


def _kernels_sha256() -> str | None:
    try:
        manifest = default_folder() / MANIFEST_NAME
    except KernelError:
        return None  # label maps are made on the CPU then
    return hashlib.sha256(manifest.read_bytes()).hexdigest()
