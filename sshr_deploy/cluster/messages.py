"""What the workers of a cluster and the process that gives them work tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.errors import SshrDeployError
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.pipeline.documents import Wording
from sshr_deploy.runtime.pipeline.spec import RunSpec
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.results.records import RunEffort
from sshr_deploy.runtime.settings import InferSettings


@dataclass(frozen=True)
class Order:
    """What a worker is started with."""

    spec: RunSpec
    """Its paths are absolute, and the same on all machines."""
    out: Path
    manifest_sha256: str
    """Of the bundle: another one at its path is not taken."""
    for_slides: bool
    """Begin with the engine of slides."""
    processes: int
    """Workers of that machine, which share its cores."""
    must_see: tuple[Path, ...]
    """Files and folders that show that the shares are there."""
    wording: Wording
    """Of messages in documents."""
    version: str
    """Of this package."""


@dataclass(frozen=True)
class Step:
    """Something takes long before the engine is ready."""

    text: str


@dataclass(frozen=True)
class Wanted:
    """The bundle is not there: send it."""


@dataclass(frozen=True)
class Ready:
    """The engine is open; inputs may come."""

    info: SessionInfo
    settings: InferSettings


@dataclass(frozen=True)
class Began:
    """See `Reporter.input_started`."""

    path: Path
    tiles: int
    tile_mm2: float | None


@dataclass(frozen=True)
class Computed:
    """See `Reporter.tiles_done`."""

    path: Path
    tiles: int


@dataclass(frozen=True)
class TakenOver:
    """See `Reporter.taken_over`."""

    path: Path
    holder: str


@dataclass(frozen=True)
class Ended:
    """An input ended."""

    result: InputResult


@dataclass(frozen=True)
class Broken:
    """The worker ends: its engine fails, or it cannot write."""

    error: SshrDeployError


@dataclass(frozen=True)
class Left:
    """The last message of a worker that was told to stop."""

    info: SessionInfo
    """With all that was found to note."""
    effort: RunEffort | None


Message = Step | Wanted | Ready | Began | Computed | TakenOver | Ended | Broken | Left


@dataclass(frozen=True)
class Report:
    """Messages of a worker, in their order."""

    token: str
    """Another one than before: the worker's process is another one, which has no inputs yet."""
    host: str
    pid: int
    messages: list[Message]
