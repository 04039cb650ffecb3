"""Where workers go in a cluster, and clusters that are not there; no Ray is started."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from sshr_deploy.cluster.connecting import connected, places
from sshr_deploy.errors import MissingExtraError, UsageError


def node(name: str, **resources: float) -> dict[str, Any]:
    alive = resources.pop("alive", 1.0) == 1.0
    return {"NodeID": name, "NodeManagerHostname": name, "Alive": alive, "Resources": resources}


def test_each_gpu_has_a_worker_and_machines_without_one_have_none() -> None:
    nodes = [node("box", CPU=32.0, GPU=4.0), node("old", CPU=8.0), node("off", GPU=2.0, alive=0.0)]
    found = places(nodes, on_gpus=True, cores=8)
    assert [(p.host, p.cores, p.gpus, p.workers) for p in found] == [("box", 1, 1, 4)] * 4


def test_cores_are_shared_out_where_the_engine_takes_no_gpu() -> None:
    nodes = [node("box", CPU=17.0, GPU=4.0), node("small", CPU=4.0), node("head", CPU=0.0)]
    found = places(nodes, on_gpus=False, cores=8)
    assert [(p.host, p.cores, p.gpus) for p in found] == [
        ("box", 8, 0), ("box", 8, 0), ("small", 4, 0)
    ]  # fmt: skip


def test_a_cluster_with_nothing_to_give_is_refused() -> None:
    with pytest.raises(UsageError, match="neither a GPU nor a core"):
        places([node("head", CPU=0.0)], on_gpus=True, cores=1)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"sshr-deploy\[ray\]"), connected("auto"):
        pass


@pytest.mark.parametrize("address", ["somewhere", "host:", "ray://host:port"])
def test_what_is_no_address_is_refused(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="is no address"), connected(address):
        pass


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    pytest.importorskip("ray")
    with socket.socket() as silent:  # it keeps its port, and does not listen
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UsageError, match="no Ray cluster answers"), connected(address):
            pass
