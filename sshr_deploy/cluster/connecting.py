"""Ray, started here or joined, and the places for workers in it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sshr_deploy.errors import MissingExtraError, SessionError, UsageError, first_line
from sshr_deploy.runtime.machine.threads import usable_cores

AUTO = "auto"
"""Stands for a cluster that runs on this machine, or else one that is started here."""
_ANSWER_S = 10.0
_STORE_BYTES = 128 << 20
"""Ray's memory for objects of a cluster that is started here: what is sent there is small."""


@dataclass(frozen=True)
class Place:
    """Room for one worker on a machine."""

    node_id: str
    """As Ray names the machine."""
    host: str
    cores: int
    """That Ray keeps for the worker."""
    gpus: int
    """1 or 0."""
    workers: int
    """On that machine."""


def import_ray() -> ModuleType:
    """The package, which sends no statistics of its use unless the user's environment says so.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its future default
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    return ray


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to a cluster: the one at `address`, for "auto" one that runs here or is
    started for this process alone; left again at the end, with all workers. A connection that this
    process has already is taken as it is.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: no cluster answers at `address`.
        SessionError: none can be started here.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    with _signals_kept():
        _connect(ray, address)
    _silence_stdout(ray)
    try:
        yield ray
    finally:
        ray.shutdown()


def find_places(ray: ModuleType, *, on_gpus: bool, cores: int) -> list[Place]:
    """`places` of the cluster that is connected."""
    return places(ray.nodes(), on_gpus=on_gpus, cores=cores)


def places(nodes: Sequence[Mapping[str, Any]], *, on_gpus: bool, cores: int) -> list[Place]:
    """One place for each GPU of the cluster; if it has none, one for each `cores` of a machine.

    Args:
        nodes: as `ray.nodes()` lists them.
        on_gpus: whether the engine may run on a GPU.
        cores: of a worker without one; a machine of fewer has one worker.

    Raises:
        UsageError: the cluster has none.
    """
    alive = [node for node in nodes if node["Alive"]]
    gpus = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in alive}
    found: list[Place] = []
    for node in alive:
        here = int(node["Resources"].get("CPU", 0))
        if on_gpus and any(gpus.values()):
            count, each, gpu = gpus[node["NodeID"]], min(1, here), 1
        else:
            each, gpu = min(cores, here), 0
            count = here // each if each else 0
        place = Place(node["NodeID"], node["NodeManagerHostname"], each, gpu, count)
        found += [place] * count
    if not found:
        raise UsageError("the Ray cluster has neither a GPU nor a core to give; see ray status")
    return found


def _check_answers(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"`ray` {address} is no address; give HOST:PORT, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address}: {first_line(error)}; start one there with "
            "ray start --head (see docs/cluster.md), or give `ray` auto"
        ) from error


def _connect(ray: ModuleType, address: str) -> None:
    if address != AUTO:
        _check_answers(address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    refused = (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError)
    try:
        ray.init(address=address, **quiet)
    except refused as error:
        if address != AUTO or not isinstance(error, ConnectionError):
            raise UsageError(
                f"the Ray cluster at {address} cannot be joined: {first_line(error)}; "
                "see docs/cluster.md"
            ) from error
    else:
        return
    try:
        ray.init(
            address="local",
            num_cpus=usable_cores(),
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            **quiet,
        )
    except refused as error:
        raise SessionError(
            f"Ray cannot be started here: {first_line(error)}; its logs are in /tmp/ray"
        ) from error


def _silence_stdout(ray: ModuleType) -> None:
    """Ray prints of lost workers on stdout, whatever `log_to_driver` says; its logs have it too."""
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    if worker is not None and hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it connects; who calls has a use for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
