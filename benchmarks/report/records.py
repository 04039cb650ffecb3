"""Types of a benchmark's document; its JSON Schema is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from sshr_deploy.manifest import Sha256, Share
from sshr_deploy.runtime.results.findings import Document

SCHEMA_VERSION: Literal[1] = 1

Kind = Literal[
    "latency",
    "throughput",
    "soak",
    "pipeline",
    "slides",
    "roofline",
    "int8",
    "training",
    "host",
    "kernels",
    "gate",
]
Better = Literal["lower", "higher"]
Positive = Annotated[float, Field(gt=0)]
_ALL_WRITTEN = ConfigDict(json_schema_serialization_defaults_required=True)


class Gpu(Document):
    """An NVIDIA GPU."""

    name: str
    driver: str | None
    memory_mib: int | None


class Environment(Document):
    """The machine and the releases that a measurement was taken with."""

    sshr_deploy: str
    commit: str | None
    """Of the sources; "-dirty" follows where they were changed. Null for an installed package."""
    processor: str
    cores: Annotated[int, Field(ge=1)]
    """That the process may use."""
    gpus: tuple[Gpu, ...]
    platform: str
    python: str
    libraries: dict[str, str]
    """Versions by package; absent ones are left out."""


class Clocks(Document):
    """Clocks at a moment, in MHz; null for what the machine does not tell."""

    cpu_mhz: float | None
    """Mean of all cores."""
    governor: str | None
    """How Linux chooses the processor's clock: performance, powersave, schedutil."""
    gpu_sm_mhz: tuple[int | None, ...]
    """Of the multiprocessors of each GPU, by place on the bus."""
    gpu_memory_mhz: tuple[int | None, ...]


class Load(Document):
    """What else the machine did meanwhile, and its clocks."""

    before: float | None
    """Load average of the last minute, in runnable threads; null where the system has none."""
    after: float | None
    other_work: Share | None
    """Share of the usable cores' time that other processes, or other virtual machines, took; null
    where the system does not say."""
    clocks_before: Clocks | None = None
    clocks_after: Clocks | None = None
    """When the last row was written."""


class Subject(Document):
    """What was measured."""

    profile: str
    width: int
    gflop_per_patch: float | None
    manifest_sha256: Sha256 | None
    """Of the bundle; null for a checkpoint."""
    files_sha256: dict[str, Sha256]
    """Of the bundle's files, or of the checkpoint."""


class Agreement(Document):
    """How far results are from those of the PyTorch FP32 network, on the same inputs."""

    masks: Share
    """Share of mask pixels with the same label."""
    cam_error: float | None
    """Largest relative RMS error of a CAM; null where only masks were compared."""
    misses: tuple[str, ...]
    """Bounds that are missed, each with its figure; a row that has some has no samples."""


class Row(Document):
    """One thing that was measured: its raw samples, and what follows from them."""

    model_config = _ALL_WRITTEN

    name: str
    """Unique in the document; `benchmark compare` pairs rows by it."""
    unit: str
    """Of the samples: ms, s, patches/s."""
    better: Better
    samples: tuple[Positive, ...]
    """In the order in which they were taken; empty where it was not measured."""
    not_measured: str | None = None
    """Why there are no samples, in one line."""
    agreement: Agreement | None = None
    """Null where there is nothing to compare."""
    figures: dict[str, float | None] = Field(default_factory=dict)
    """Derived from the samples, each with its unit in its name; null where it cannot be told."""
    refused: dict[str, str] = Field(default_factory=dict)
    """Figures that are null, with the reason."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What else there is to know: engine, batch, threads, peak memory."""


class BenchmarkDocument(Document):
    """All that one benchmark found."""

    model_config = _ALL_WRITTEN

    schema_version: Literal[1] = SCHEMA_VERSION
    benchmark: Kind
    measured_utc: str
    complete: bool
    """False where it was interrupted, or failed: the rows are those it had finished."""
    environment: Environment
    load: Load
    subject: Subject | None
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    facts: dict[str, Any] = Field(default_factory=dict)
    """Beside the rows: ceilings, cold start, plans."""
    notes: tuple[str, ...] = ()
    """For readers: what was left out, and why."""

    @field_validator("rows")
    @classmethod
    def _names_are_unique(cls, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        names = [row.name for row in rows]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two rows have the name {min(twice)!r}")
        return rows

    def row(self, name: str) -> Row:
        """The row of that name.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)
