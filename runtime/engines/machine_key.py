"""The key that an engine must have to be used on this machine."""

from __future__ import annotations

import hashlib

import sshr_deploy
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import KernelError
from sshr_deploy.manifest import Artifact
from sshr_deploy.runtime.cuda.opening import DEVICE_LIBRARIES
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.engines.kind import EngineKind
from sshr_deploy.runtime.kernels.manifest import MANIFEST_NAME, default_folder
from sshr_deploy.runtime.machine.gpus import first_gpu
from sshr_deploy.runtime.machine.processor import library_versions, processor_text
from sshr_deploy.runtime.masks import mask_rule


def machine_key(bundle: Bundle, artifact: Artifact, kind: EngineKind, batch: int) -> EngineKey:
    """Key of `artifact` for an engine on the first GPU of this machine, or on its processor.

    Args:
        bundle: the bundle of the artefact.
        artifact: what is to run.
        kind: the engine.
        batch: the largest static batch; the smaller is 1.

    Raises:
        MissingExtraError, SessionError: the library or the GPU that the engine needs is not there.
    """
    files = bundle.manifest.files
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
        precision=artifact.precision.value,
        model_sha256=hashlib.sha256("".join(graph).encode()).hexdigest(),
        reference_sha256=files[bundle.manifest.reference_file].sha256,
        batches=tuple(sorted({1, batch})) if kind.has_static_batches else (),
        library=kind.library_text(),
        device=gpu.name if gpu else processor_text(),
        sm=gpu.sm if gpu else None,
        driver=gpu.driver if gpu else None,
        sshr_deploy=sshr_deploy.__version__,
        rule=str(mask_rule(bundle.manifest.profile)),
        options=bundle.manifest.engine_options.model_dump_json() if is_built else "",
        kernels_sha256=_kernels_sha256() if launches else None,
    )


def _kernels_sha256() -> str | None:
    try:
        manifest = default_folder() / MANIFEST_NAME
    except KernelError:
        return None  # label maps are made on the CPU then
    return hashlib.sha256(manifest.read_bytes()).hexdigest()
