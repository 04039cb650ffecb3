"""A run as another process can do it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.runtime.settings import InferSettings, OpenOptions


@dataclass(frozen=True)
class RunSpec:
    """All that decides a run but its inputs; small, and can be pickled for a worker process."""

    bundle: Path
    """Folder of the exported model."""
    settings: InferSettings
    engine: str
    """A name of `engines.kinds`, or "auto"."""
    options: OpenOptions
    """How the engine is opened."""
    threads: int | None = None
    """CPU threads of a process; None for the number that suits the model."""
