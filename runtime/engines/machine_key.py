"""The key that an engine must have to be used on this machine."""

from __future__ import annotations

import hashlib

import sshr_deploy
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import KernelError
from sshr_deploy.manifest import Artifact
from sshr_deploy.runtime.engines.key import EngineKey
from sshr_deploy.runtime.kernels.manifest import MANIFEST_NAME, default_folder
from sshr_deploy.runtime.machine.gpus import first_gpu
from sshr_deploy.runtime.machine.processor import library_versions, processor_text
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.sessions.onnxruntime.providers import PROVIDERS
from sshr_deploy.runtime.sessions.onnxruntime.session import import_onnxruntime
from sshr_deploy.runtime.sessions.onnxruntime.session import library_text as onnxruntime_text
from sshr_deploy.runtime.sessions.tensorrt.library import LIBRARIES, import_tensorrt, library_text

PLAN_ENGINES = tuple(LIBRARIES)
"""Engines that run a plan that was built here."""
CACHING_ENGINES = tuple(name for name, item in PROVIDERS.items() if item.cache_options)
"""Engines of ONNX Runtime that keep what they built, and leave it as it is from then on."""
_DEVICE_LIBRARIES = ("cuda-core", "pycuda")
"""Without one of them onnx-cuda launches no kernels; the engines that run a plan need one."""


def machine_key(bundle: Bundle, artifact: Artifact, engine: str, batch: int) -> EngineKey:
    """Key of `artifact` for `engine` on the first GPU of this machine, or on its processor.

    Args:
        bundle: the bundle of the artefact.
        artifact: what is to run.
        engine: a name of `EngineChoice`.
        batch: the largest static batch; the smaller is 1.

    Raises:
        SessionError: the library or the GPU that the engine needs is not there.
    """
    files = bundle.manifest.files
    graph = [
        files[name].sha256
        for name in sorted(files)
        if name.startswith(artifact.file) or name in artifact.weights
    ]
    gpu = None if engine == "onnx-cpu" else first_gpu()
    planned = engine in PLAN_ENGINES
    if planned:
        library = library_text(engine, import_tensorrt(engine))
    else:
        library = onnxruntime_text(import_onnxruntime(), engine)
    launches = planned or (engine == "onnx-cuda" and bool(library_versions(_DEVICE_LIBRARIES)))
    builds = planned or PROVIDERS[engine].prefix is not None
    return EngineKey(
        engine=engine,
        precision=artifact.precision.value,
        model_sha256=hashlib.sha256("".join(graph).encode()).hexdigest(),
        reference_sha256=files[bundle.manifest.reference_file].sha256,
        batches=tuple(sorted({1, batch})) if builds else (),
        library=library,
        device=gpu.name if gpu else processor_text(),
        sm=gpu.sm if gpu else None,
        driver=gpu.driver if gpu else None,
        sshr_deploy=sshr_deploy.__version__,
        rule=str(mask_rule(bundle.manifest.profile)),
        options=bundle.manifest.engine_options.model_dump_json() if planned else "",
        kernels_sha256=_kernels_sha256() if launches else None,
    )


def _kernels_sha256() -> str | None:
    try:
        manifest = default_folder() / MANIFEST_NAME
    except KernelError:
        return None  # label maps are made on the CPU then
    return hashlib.sha256(manifest.read_bytes()).hexdigest()
