"""Opens a graph with one execution provider of ONNX Runtime, and with that one alone.

ONNX Runtime prefers to run somewhere: a provider that does not start, or that has no kernel for a
node, is replaced by the CPU with a line in a log. Here both are errors.
"""

from __future__ import annotations

import importlib
import io
from collections import Counter
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from sshr_deploy.errors import SessionError, first_line
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import INPUT_NAME
from sshr_deploy.runtime.machine.threads import onnxruntime_options
from sshr_deploy.runtime.sessions.onnxruntime.providers import CPU_PROVIDER, Provider

_WARNING, _FATAL = 2, 4  # ONNX Runtime's log levels; the first is its default


def provider_options(
    provider: Provider, batch: int, folder: Path | None, geometry: Geometry = PATCH
) -> dict[str, str]:
    """Options of a provider that takes 1 to `batch` inputs and keeps what it builds in `folder`.

    Without explicit shapes TensorRT builds on the first call, and again for each larger batch.
    """
    options = dict(provider.options)
    if provider.prefix is not None:
        for bound, size in (("min", 1), ("opt", batch), ("max", batch)):
            shape = f"{INPUT_NAME}:" + "x".join(map(str, (size, *geometry.input_shape())))
            options[f"{provider.prefix}_profile_{bound}_shapes"] = shape
    if folder is not None:
        options |= {k: v.format(folder=folder) for k, v in provider.cache_options.items()}
    return options


def open_graph(
    ort: Any,
    path: Path,
    provider: Provider,
    precision: str,
    options: dict[str, str],
    streams: int = 1,
) -> Any:
    """An `onnxruntime.InferenceSession` in which every node runs on `provider`.

    On the CPU its threads are shared by `streams` calls at the same time.

    Raises:
        SessionError: the provider is not there, does not start or cannot run a part of the graph,
            or the graph is none; says which.
    """
    missing = _preload(ort) if provider.buffers == "cuda" else ""
    if provider.plugin is not None:
        _register(ort, provider.name, provider.plugin, provider.extra)
    elif provider.name not in ort.get_available_providers():
        raise SessionError(
            f"this onnxruntime has no {provider.name}; pip install 'sshr-deploy[{provider.extra}]'"
        )
    try:
        session = _open(ort, path, provider, options, strict=True, streams=streams)
    except SessionError:
        raise
    except Exception as error:  # ONNX Runtime has no common base class of its errors
        why = _why_on_cpu(ort, path, provider, options, missing)
        if why is None and missing:
            why = _not_started(provider, missing)
        if why is None and precision == Precision.BF16:
            reason = first_line(error)
            why = f"{provider.name} cannot run bf16 here: {reason}; choose another `precision`"
        raise SessionError(why or f"onnxruntime cannot open {path}: {first_line(error)}") from error
    _check_started(session, provider, missing)
    return session


def _open(
    ort: Any,
    path: Path,
    provider: Provider,
    options: dict[str, str],
    *,
    strict: bool,
    streams: int = 1,
) -> Any:
    """`strict` makes a node on the CPU an error, otherwise it is recorded."""
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL  # what is wrong comes as an exception
    onnxruntime_options(settings, streams)
    if provider.name != CPU_PROVIDER:
        switch = "disable_cpu_ep_fallback" if strict else "record_ep_graph_assignment_info"
        settings.add_session_config_entry(f"session.{switch}", "1")
    providers: list[tuple[str, dict[str, str]]] | None = [(provider.name, options)]
    if provider.plugin is not None:
        settings.add_provider_for_devices(_devices(ort, provider.name), options)
        providers = None
    # The fallback of the Python side prints to stdout and opens the graph on the CPU.
    return ort.InferenceSession(
        str(path), sess_options=settings, providers=providers, enable_fallback=False
    )


def _check_started(session: Any, provider: Provider, missing: str) -> None:
    first = session.get_providers()[0]
    if first != provider.name:
        why = _not_started(provider, missing)
        raise SessionError(f"{why}; onnxruntime fell back to {first}")


def _not_started(provider: Provider, missing: str) -> str:
    text = f"{provider.name} could not start here"
    return f"{text}: {missing}; pip install 'sshr-deploy[{provider.extra}]'" if missing else text


def _why_on_cpu(
    ort: Any, path: Path, provider: Provider, options: dict[str, str], missing: str
) -> str | None:
    """Why some nodes would run on the CPU; None where that is not what is wrong."""
    if provider.name == CPU_PROVIDER:
        return None
    ort.set_default_logger_severity(_FATAL)  # it has said all that once
    try:
        session = _open(ort, path, provider, options, strict=False)
    except Exception:
        return None  # it does not open at all; the caller has the reason
    finally:
        ort.set_default_logger_severity(_WARNING)
    try:
        _check_started(session, provider, missing)
    except SessionError as error:
        return str(error)
    elsewhere = Counter(
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != provider.name
        for node in part.get_nodes()
    )
    nodes = ", ".join(f"{count} {name}" for name, count in elsewhere.most_common(5))
    return (
        f"{provider.name} cannot run all of this graph, so that parts of it would run on the CPU "
        f"({nodes or 'nodes of a type that it has no kernel for'}); choose another `precision`"
    )


def _preload(ort: Any) -> str:
    """Load CUDA and cuDNN from NVIDIA's packages; the first that fails and why, or ""."""
    said = io.StringIO()
    with redirect_stdout(said):  # it prints "Failed to load LIBRARY: WHY"
        ort.preload_dlls()
    failed = (line for line in said.getvalue().splitlines() if line.startswith("Failed to load"))
    return next(failed, "").partition(": ")[2].strip()


@cache
def _register(ort: Any, name: str, module: str, extra: str) -> None:
    """Make the provider of a plug-in package known to this process, once."""
    try:
        plugin = importlib.import_module(module)
    except ImportError as error:
        package = module.replace("_", "-")
        raise SessionError(
            f"{package} is not installed: pip install 'sshr-deploy[{extra}]'"
        ) from error
    try:
        ort.register_execution_provider_library(name, plugin.get_library_path())
    except Exception as error:  # ONNX Runtime has no common base class of its errors
        raise SessionError(f"{name} cannot start: {first_line(error)}") from error


def _devices(ort: Any, name: str) -> list[Any]:
    """The first GPU that a plug-in provider can use."""
    found = [device for device in ort.get_ep_devices() if device.ep_name == name]
    if not found:
        raise SessionError(f"{name} finds no GPU that it can use; choose another `engine`")
    return found[:1]
