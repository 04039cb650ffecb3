"""An engine, as a row of the table in `kinds`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.machine.processor import processor_text
from sshr_deploy.runtime.sessions.onnxruntime.providers import Provider
from sshr_deploy.runtime.sessions.tensorrt.library import Library
from sshr_deploy.runtime.settings import CPU_BATCH, GPU_BATCH

if TYPE_CHECKING:
    from sshr_deploy.runtime.contract import Session


@dataclass(frozen=True)
class Package:
    """Where the library of an engine comes from that neither ONNX Runtime nor TensorRT is."""

    module: str
    package: str
    """On PyPI."""
    extra: str
    """Of this project, that installs it."""


@dataclass(frozen=True)
class Opening:
    """Facts that a session is opened with."""

    graph: Path
    classes: int
    precision: str
    batch: int
    """Patches in the largest call."""
    batches: tuple[int, ...]
    """Static batch sizes of the engine's key."""
    folder: Path | None
    """With what was built for it; None where nothing is kept."""
    options: Mapping[str, str]
    """That were kept of those on trial."""
    runtime_cache: Path
    host_code: bool
    """Code that the engine brings may run in this process."""
    width: int
    """Channels of the network's first convolution."""
    streams: int | None
    """Calls at the same time, as the user wishes; None chooses."""
    geometry: Geometry = PATCH
    """Of the graph's inputs."""


@dataclass(frozen=True)
class EngineKind:
    """A row: an engine."""

    name: str
    target: str
    """Of `export --engine`, which makes graphs for it."""
    runs_on: Provider | Library | Package
    precisions: tuple[Precision, ...]
    """Taken unless one is asked for, the faster first."""
    text: Callable[[EngineKind], str]
    """See `library_text`."""
    session: Callable[[EngineKind, Opening], Session]
    """See `open`."""
    graphs_of: str | None = None
    """An engine whose graphs it runs, where the export makes none for it. "auto" takes it where a
    record of this machine shows that it is faster than that one."""
    computed_from: Mapping[Precision, Precision] = field(default_factory=dict)
    """Precisions in which it computes the graph of another."""
    computes: Callable[[Precision], bool] = lambda _: True
    """Whether this machine can compute in a precision, where that shows without opening it."""
    device: Callable[[], str] = processor_text
    """Names what it runs on, where that is no GPU of NVIDIA; part of its key."""
    needs_gpu: bool = True
    """Of NVIDIA."""
    refuses: Callable[[str, int], str | None] | None = None
    """Says why it does not take a GPU of a name and an SM (89 for 8.9), None where it may."""
    has_static_batches: bool = False
    """It is made for batch sizes, which belong to its key."""
    keeps_files: bool = False
    """Files that it was built into stay in the folder of its record and are hashed there."""
    launches_kernels: bool = False
    """It makes label maps on the GPU where a library for that is installed."""
    mend: tuple[str, ...] = ()
    """Lines for a shell that bring the libraries of a provider that is there and does not start."""

    @property
    def provider(self) -> Provider | None:
        """Of ONNX Runtime; None for the others."""
        return self.runs_on if isinstance(self.runs_on, Provider) else None

    @property
    def library(self) -> Library | None:
        """That builds it; None for an engine that runs the bundle's graph as it is."""
        return self.runs_on if isinstance(self.runs_on, Library) else None

    @property
    def graphs(self) -> str:
        """The engine whose graphs it runs: its own name, or `graphs_of`."""
        return self.graphs_of or self.name

    @property
    def is_considered(self) -> bool:
        """Whether "auto" looks at it: where it has another's graphs, only if it is installed."""
        package = self.runs_on if isinstance(self.runs_on, Package) else None
        if self.graphs_of is None or package is None:
            return True
        return find_spec(package.module) is not None

    @property
    def package(self) -> str | None:
        """On PyPI, of its own; None where onnxruntime's has all."""
        return self.runs_on.package

    @property
    def extra(self) -> str:
        """Of this project, that installs it."""
        return self.runs_on.extra

    @property
    def default_batch(self) -> int:
        """Patches in a call."""
        return GPU_BATCH if self.needs_gpu else CPU_BATCH

    def batch_for(self, asked: int | None, geometry: Geometry = PATCH) -> int:
        """Inputs in the largest call, where the user asks for so many patches, or for none."""
        return inputs_for(asked or self.default_batch, geometry)

    def library_text(self) -> str:
        """The library that computes, with exact versions, "tensorrt-rtx 1.7.1.116".

        Raises:
            MissingExtraError, SessionError: it is not installed, or does not start.
        """
        return self.text(self)

    def open(self, opening: Opening) -> Session:
        """Open a session.

        Raises:
            MissingExtraError, SessionError: it cannot run here.
        """
        return self.session(self, opening)


def inputs_for(patches: int, geometry: Geometry) -> int:
    """Fields of about the size of so many patches, one at least; of patches their number."""
    return max(1, patches * PATCH.side_px**2 // geometry.side_px**2)
