"""Artefacts of a bundle that an engine may run."""

from __future__ import annotations

from typing import NamedTuple

from sshr_deploy.bundle import Bundle
from sshr_deploy.manifest import Artifact, Tolerance
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.kind import EngineKind
from sshr_deploy.runtime.engines.qualification import TOLERANCES


class Candidate(NamedTuple):
    """An artefact, and the engine and precision that would compute it."""

    kind: EngineKind
    artifact: Artifact
    precision: Precision

    def __str__(self) -> str:
        return f"{self.kind.name} {self.precision}"

    @property
    def tolerance(self) -> Tolerance:
        """That it has to keep: the artefact's, or that of a narrower precision."""
        own = self.precision is self.artifact.precision
        return self.artifact.tolerance if own else TOLERANCES[self.precision]


def candidates_for(
    bundle: Bundle, kind: EngineKind, precision: Precision | None
) -> list[Candidate]:
    """Candidates of an engine in that precision, or in any that it prefers, the faster first.

    Where none is asked for, those are left out that this machine cannot compute.
    """
    there = {artifact.precision: artifact for artifact in bundle.artifacts(kind.graphs)}
    found = []
    usual = [wanted for wanted in kind.precisions if kind.computes(wanted)]
    for wanted in usual if precision is None else (precision,):
        source = wanted if wanted in there else kind.computed_from.get(wanted)
        if source in there:
            found.append(Candidate(kind, there[source], wanted))
    return found
