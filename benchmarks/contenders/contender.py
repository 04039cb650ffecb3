"""One way to get label maps of patches, to be timed beside others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sshr_deploy.manifest import Tolerance
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import Session


@dataclass(frozen=True)
class Contender:
    """An engine and precision of the bundle, or a peer, that can be opened."""

    name: str
    """Unique: "onnx-cpu int8", "PyTorch compiled"."""
    precision: Precision
    tolerance: Tolerance
    """That its results have to keep before its speed is told."""
    open: Callable[[int], Session]
    """Opens it for calls of at most so many inputs; raises an error of `sshr_deploy.errors` where
    it cannot be had here, whose line says why."""
    about: str
    """Of a peer: its settings, in one line; empty for the bundle's own engines."""
    is_peer: bool = False
    open_one_stream: Callable[[int], Session] | None = None
    """Opens it for one call at a time, which then has all threads; None where there is no choice.
    """
    on_gpu: bool = False
    """It computes there, so that no rate of the processor bounds it."""
    compiles_sizes: bool = False
    """Each new number of inputs in a call takes it long, so it is judged one by one."""
    has_static_batches: bool = False
    """It has code made for some sizes of a call."""

    @property
    def depends_on_size(self) -> bool:
        """Whether masks that agree in calls of one size say nothing about another."""
        return self.compiles_sizes or self.has_static_batches
