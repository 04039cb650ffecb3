"""Findings of `sshr-deploy doctor` as data; `Report.document` is its `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.machine.gpus import Gpu

SCHEMA = 1


@dataclass(frozen=True)
class Processor:
    """The CPU; what it can do is None where it is not known."""

    name: str
    cores: int
    """Those that this process may use."""
    avx2: bool | None
    avx512: bool | None
    vnni: bool | None
    """Sums of four 8-bit products in one instruction, without saturation."""


@dataclass(frozen=True)
class Machine:
    """The computer and its Python."""

    platform: str
    python: str
    processor: Processor
    memory_mib: int | None


@dataclass(frozen=True)
class Kernels:
    """Precompiled kernels of one op for one GPU."""

    op: str
    available: int
    total: int
    """Variants that there are for any GPU."""
    reason: str | None
    """Why none can be used."""


@dataclass(frozen=True)
class GpuFacts:
    """A GPU, and the kernels for it."""

    gpu: Gpu
    kernels: tuple[Kernels, ...]


@dataclass(frozen=True)
class OnnxRuntime:
    """The module `onnxruntime` as it imports, whichever packages were installed over each other."""

    packages: tuple[str, ...]
    """Installed ones that own it."""
    version: str | None
    package: str | None
    """The one whose files are there."""
    cuda: str | None
    """CUDA that it was built for, "13.0"; None for a build without."""
    providers: tuple[str, ...]
    error: str | None
    """Why it does not import."""


@dataclass(frozen=True)
class Answer:
    """Outcome of a trial in a process of its own."""

    facts: Mapping[str, Any]
    error: str | None
    """Why it failed, one line."""


@dataclass(frozen=True)
class Facts:
    """All that was looked up and tried; the rules draw their conclusions from this alone."""

    gpus: tuple[Gpu, ...]
    no_gpu: str
    """Why there is none; empty where there is one."""
    machine: Machine
    libraries: Mapping[str, str]
    """Version by name of the distribution."""
    onnxruntime: OnnxRuntime
    trials: Mapping[str, Answer]
    """By name: engines, "cuda", and modules."""
    environ: Mapping[str, str]

    @property
    def on_windows(self) -> bool:
        """Which shell and which paths the commands are for."""
        return self.machine.platform.startswith("Windows")

    def trial_error(self, name: str) -> str | None:
        """Why a trial failed; None where it went well or was not made."""
        answer = self.trials.get(name)
        return None if answer is None else answer.error

    def went_well(self, name: str) -> bool:
        """Whether a trial was made and went well."""
        return name in self.trials and self.trials[name].error is None


@dataclass(frozen=True)
class Lack:
    """Something that is missing or broken."""

    reason: str
    mend: tuple[str, ...] = ()
    """Lines for a shell, one after the other: commands, or "# ..." where no command can do it.

    Empty where another lack of the same engine has to be mended first.
    """


@dataclass(frozen=True)
class Conflict:
    """Parts that do not go together."""

    name: str
    """Stable, for programs."""
    reason: str
    mend: tuple[str, ...]
    """Lines for a shell, as in `Lack`."""
    breaks: tuple[str, ...]
    """Engines that cannot run because of it."""


@dataclass(frozen=True)
class Ability:
    """An engine, or a command."""

    name: str
    tried: tuple[str, ...]
    """Trials that went well."""
    not_tried: str | None
    """Things that only its use will show."""
    lacks: tuple[Lack, ...]
    notes: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Nothing is lacking."""
        return not self.lacks


@dataclass(frozen=True)
class ArtifactFacts:
    """One graph of a bundle."""

    precision: str
    file: str
    engines: tuple[str, ...]
    """That may run it."""
    qualified: bool
    """On the machine that exported it."""


@dataclass(frozen=True)
class BundleFacts:
    """The bundle that was named."""

    path: str
    error: str | None
    artifacts: tuple[ArtifactFacts, ...]
    """For patches."""
    field_artifacts: tuple[ArtifactFacts, ...] = ()
    field_px: int | None = None
    """Side of the fields; None where the bundle has no graphs for any."""

    def precisions(self, engine: str, *, of_fields: bool = False) -> tuple[str, ...]:
        """Of the artefacts that `engine` may run, for patches or for fields."""
        kind = find_kind(engine)
        graphs = engine if kind is None else kind.graphs
        artifacts = self.field_artifacts if of_fields else self.artifacts
        there = [item.precision for item in artifacts if graphs in item.engines]
        more = {} if kind is None else kind.computed_from
        return (*there, *(wider for wider, source in more.items() if source in there))


@dataclass(frozen=True)
class SlideLook:
    """How the tissue of a slide looks beside the tissue that the bundle's network knows."""

    path: str
    verdict: str | None
    """"fits", "differs" or "far"; None where it could not be measured."""
    score: float | None
    words: str
    """The verdict, or why there is none; one line."""


@dataclass(frozen=True)
class Report:
    """Everything `sshr-deploy doctor` says."""

    version: str
    """Of sshr-deploy."""
    machine: Machine
    gpus: tuple[GpuFacts, ...]
    no_gpu: str
    libraries: Mapping[str, str]
    onnxruntime: OnnxRuntime
    engines: tuple[Ability, ...]
    commands: tuple[Ability, ...]
    conflicts: tuple[Conflict, ...]
    bundle: BundleFacts | None
    slides: tuple[SlideLook, ...] = ()
    """Those that were named; how they look decides nothing else."""

    @property
    def usable(self) -> tuple[str, ...]:
        """Engines that are ready, and have an artefact in the bundle if one was named."""
        return tuple(
            engine.name
            for engine in self.engines
            if engine.ready and (self.bundle is None or self.bundle.precisions(engine.name))
        )

    @property
    def ready(self) -> bool:
        """`infer` can run here (the bundle that was named)."""
        whole = self.bundle is None or self.bundle.error is None
        infer = next(command for command in self.commands if command.name == "infer")
        return infer.ready and whole and bool(self.usable)

    def document(self) -> dict[str, Any]:
        """The report for JSON."""
        content = asdict(self)
        for key in ("engines", "commands"):
            for entry, ability in zip(content[key], getattr(self, key), strict=True):
                entry["ready"] = ability.ready
        content["gpus"] = [
            {**asdict(facts.gpu), "kernels": [asdict(kernels) for kernels in facts.kernels]}
            for facts in self.gpus
        ]
        return {"schema": SCHEMA, "ready": self.ready, "usable": list(self.usable), **content}
