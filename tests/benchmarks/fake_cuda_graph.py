"""CUDA graphs without a GPU, as far as `gpu_timing.Replay` uses them.

A graph holds the operations of its capture, what they made, and of all else that they read only
the address: here a weak reference, so that a replay shows what nobody holds any more.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


class FakeGraph(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stands for `torch.cuda.CUDAGraph`; captures what is called while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[Tensor] = []
        self.views: list[tuple[weakref.ref[Tensor], Callable[[], Tensor]]] = []
        self.work: list[Callable[[], None]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        assert isinstance(out, Tensor), f"{func} is beyond this stand-in"
        held = tree_map(self._held, (args, kwargs or {}))
        if func.is_view:  # no work, and holding it would hold what it is a view of
            self.views.append((weakref.ref(out), lambda: _called(func, held)))
        else:
            self.work.append(lambda: self._again(func, held, out))
            self.made.append(out)
        return out

    def replay(self) -> None:
        for work in self.work:
            work()

    def _held(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if any(value is tensor for tensor in self.made):
            return _Address(lambda: value)
        for view, made_again in self.views:
            if view() is value:
                return _Address(made_again)
        return _Address(weakref.ref(value))

    @staticmethod
    def _again(func: Any, held: Any, out: Tensor) -> None:
        out.copy_(_called(func, held))


def _called(func: Any, held: Any) -> Tensor:
    args, kwargs = tree_map(lambda v: v.tensor() if isinstance(v, _Address) else v, held)
    result: Tensor = func(*args, **kwargs)
    return result


class _Address:
    def __init__(self, get: Callable[[], Tensor | None]) -> None:
        self.get = get

    def tensor(self) -> Tensor:
        tensor = self.get()
        assert tensor is not None, "a graph reads memory that nobody holds any more"
        return tensor


def install_fake_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test ends, PyTorch says that there is a GPU and captures graphs; no kernel runs."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)  # imports much where CUDA is
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", _capture)
    monkeypatch.setattr("sshr_deploy.benchmarks.measuring.gpu_timing.timed_ms", _timed_ms)


@contextmanager
def _capture(graph: FakeGraph, stream: object) -> Iterator[None]:
    with graph:
        yield


def _timed_ms(call: Callable[[], object]) -> float:
    call()
    return 1.0
