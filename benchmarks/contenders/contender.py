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
    compiles_sizes: bool = False
    """Each new number of inputs in a call takes it long, so it is judged one by one."""
