"""A worker of a cluster, as the process sees it that gives out the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from sshr_deploy.cluster.connecting import Place
from sshr_deploy.cluster.messages import Left, Order, Ready, Report
from sshr_deploy.cluster.worker import Worker
from sshr_deploy.runtime.pipeline.discovery import Input

_AHEAD = 2
"""Slides that a worker has at a time, one being computed and one planned; or batches of images."""
_THREADS = 4
"""Of Ray, in a worker: `messages` may wait, and the others come meanwhile."""


class Employed:
    """An actor, and what it has to do."""

    def __init__(self, ray: ModuleType, order: Order, place: Place) -> None:
        """Start it in its place; where that is lost, Ray starts it again somewhere."""
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        self._ray, self.host, self.pid = ray, place.host, 0
        self.actor: Any = (
            ray.remote(Worker)
            .options(
                num_cpus=place.cores,
                num_gpus=place.gpus,
                max_concurrency=_THREADS,
                max_restarts=-1,
                scheduling_strategy=strategy(place.node_id, soft=True),
            )
            .remote(replace(order, processes=place.workers))
        )
        self.losses = 0
        """Since it ended an input last."""
        self.left: Left | None = None
        """Its last message."""
        self.given: dict[Path, Input] = {}
        """Inputs that it has to do."""
        self.forget()

    def forget(self) -> dict[Path, Input]:
        """Its process is lost: listen to the next one. Gives back what it had to do."""
        self.token: str | None = None
        self.ready: Ready | None = None
        self._calls: list[Any] = []
        self.report: Any = self.actor.messages.remote()
        given, self.given = self.given, {}
        return given

    def read(self) -> Report:
        """The report, which is there; another is asked for.

        Raises:
            RayActorError: it is lost.
        """
        report: Report = self._ray.get(self.report)
        done, self._calls = self._ray.wait(self._calls, num_returns=len(self._calls), timeout=0)
        self._ray.get(done)
        self.report = self.actor.messages.remote()
        return report

    def give(self, item: Input) -> None:
        """Let it do an input."""
        self.given[item.path] = item
        self._calls.append(self.actor.give.remote(item))

    def room(self) -> float:
        """Share of what it may have at a time that is free; 0 or less for none."""
        if self.ready is None or self.left is not None:
            return 0.0
        batch = self.ready.settings.batch
        load = sum(1 if item.kind == "slide" else 1 / batch for item in self.given.values())
        return 1 - load / _AHEAD

    def kill(self, *, for_good: bool) -> None:
        """End its process at once."""
        self._ray.kill(self.actor, no_restart=for_good)
