"""Why engines were not taken, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.candidate import Candidate
from sshr_deploy.runtime.engines.kind import EngineKind


class Failure(NamedTuple):
    """A candidate that did not open."""

    candidate: Candidate
    error: SshrDeployError

    @property
    def reason(self) -> str:
        """The error's text without the candidate, which it may begin with."""
        return str(self.error).removeprefix(f"{self.candidate}: ")


def reasons_by_engine(failures: Sequence[Failure], taken: str = "") -> dict[str, str]:
    """Reasons by engine; by engine and precision where the precisions of an engine differ in it,
    or where the engine is `taken` with another one."""
    said: dict[str, dict[str, str]] = {}
    for failure in failures:
        kind, _, precision = failure.candidate
        said.setdefault(kind.name, {})[precision] = failure.reason
    rejected: dict[str, str] = {}
    for engine, reasons in said.items():
        if engine != taken and len(set(reasons.values())) == 1:
            rejected[engine] = next(iter(reasons.values()))
        else:
            rejected |= {f"{engine} {precision}": why for precision, why in reasons.items()}
    return rejected


def all_reasons(failures: Sequence[Failure]) -> str:
    """All reasons in a line, each once, with the engines that it stopped."""
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons_by_engine(failures).items():
        by_reason.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in by_reason.items())


def why_not_exported(bundle: Bundle, kind: EngineKind) -> str:
    """Why there was no candidate of an engine."""
    if there := bundle.artifacts(kind.graphs):
        precisions = ", ".join(artifact.precision for artifact in there)
        return f"the bundle has only {precisions} for it"
    return f"the bundle has no artefact for it; export it with --engine {kind.target}"


def nothing_fits(bundle: Bundle, engine: str, precision: Precision | None) -> str:
    """Message for a bundle that has nothing for an engine: the wish, and what it has."""
    there = {
        f"{artifact.precision} for {', '.join(artifact.engines)}" for artifact in bundle.graphs
    }
    asked = engine if precision is None else f"{precision} for {engine}"
    if bundle.fields is not None:
        asked += f" and {bundle.geometry.inputs}"
    return (
        f"{bundle.path} has no {asked}; it has {'; '.join(sorted(there))}: "
        "choose among these, or export it with what is missing"
    )
