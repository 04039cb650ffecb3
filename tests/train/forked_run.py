"""`sshr-deploy train` in processes that are forked from one that has imported PyTorch already.

Each is a process of its own, which signals end for real; a fresh interpreter would need seconds.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.train.run_checkpoint import LAST_NAME
from tests.train.dataset_of_textures import LIMIT_S

_SLOW_IMPORTS = (
    "torch._dynamo",  # which the first optimiser of a process imports
    "torch.utils.tensorboard",
    "sshr_deploy.train.run",
    "sshr_deploy.train.curves",
    "sshr_deploy.cli",
)

Prepare = Callable[[], None]
"""Called in the process before the run."""


@dataclass
class Run:
    """A run in a process of its own, and where its stderr goes."""

    process: ForkServerProcess
    log: Path

    @property
    def stderr(self) -> str:
        return self.log.read_text("utf-8")

    def send(self, by: signal.Signals) -> str:
        """Send a signal and wait for the end; returns stderr."""
        assert self.process.pid is not None
        os.kill(self.process.pid, by)
        self.wait()
        return self.stderr

    def wait(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        self.process.join(LIMIT_S)
        if self.process.exitcode is None:
            self.process.kill()
            pytest.fail(f"it did not end: {self.stderr}")
        return self.process.exitcode

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is `reached`, which it has to be before the run ends."""
        deadline = time.monotonic() + LIMIT_S
        while not reached():
            if self.process.exitcode is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(f"ended too early or too late: {self.stderr}")
            time.sleep(0.005)


def start(arguments: list[str], folder: Path, prepare: Prepare | None = None) -> Run:
    """Begin `sshr-deploy train ARGUMENTS`; a log goes to `folder`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_SLOW_IMPORTS, __name__])
    log = folder / f"stderr-{time.monotonic_ns()}"
    log.touch()
    process = context.Process(target=_train, args=(arguments, log, prepare))
    process.start()
    return Run(process, log)


def _train(arguments: list[str], log: Path, prepare: Prepare | None) -> None:
    import torch

    from sshr_deploy.cli import main

    os.setsid()
    os.dup2(os.open(log, os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    sys.argv = ["sshr-deploy", "train", *arguments]
    main()


@dataclass(frozen=True)
class HalfWrittenCheckpoint:
    """SIGKILL half-way through writing the checkpoint of this number."""

    count: int

    def __call__(self) -> None:
        write, calls = Path.write_bytes, 0

        def write_or_die(path: Path, content: bytes) -> int:
            nonlocal calls
            calls += LAST_NAME in path.name
            if calls < self.count:
                return write(path, content)
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        Path.write_bytes = write_or_die  # type: ignore[method-assign,assignment]


@dataclass(frozen=True)
class SlowSteps:
    """Each takes a fifth of a second more: a signal comes before the last, however late."""

    def __call__(self) -> None:
        from sshr_deploy.train.trainer import Trainer

        steps = Trainer.steps

        def slow(trainer: Trainer, *arguments: Any) -> Iterator[Any]:
            for step in steps(trainer, *arguments):
                time.sleep(0.2)
                yield step

        Trainer.steps = slow  # type: ignore[method-assign,assignment]


@dataclass(frozen=True)
class AtCall:
    """SIGKILL in place of a call: "MODULE[/CLASS]:FUNCTION:COUNT" of `sshr_deploy.train`."""

    place: str

    def __call__(self) -> None:
        where, name, count = self.place.split(":")
        module, _, of = where.partition("/")
        owner = importlib.import_module(f"sshr_deploy.train.{module}")
        owner = getattr(owner, of) if of else owner
        real, calls = getattr(owner, name), 0

        def die(*args: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == int(count):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        setattr(owner, name, die)
