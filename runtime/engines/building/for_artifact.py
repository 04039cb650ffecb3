"""Builds an artefact's engine when a session needs it; on the workstation too, so no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sshr_deploy.manifest import Artifact, EngineOptions
from sshr_deploy.runtime.engines.building.from_onnx import BuildOptions, build_engine
from sshr_deploy.runtime.engines.key import EngineKey, PlanBuilder
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.progress import Sparse

Step = Callable[[str], None]
"""Told what is being done, in a few words."""


def plan_builder(options: EngineOptions, say: Step) -> PlanBuilder:
    """A builder that tells `say` every few seconds how far it is.

    It raises as `build_engine` does.
    """

    def build(
        graph: Path, plan: Path, artifact: Artifact, key: EngineKey, timing_cache: Path
    ) -> dict[str, Any]:
        kind = find_kind(key.engine)
        assert kind is not None and kind.library is not None
        library, sparse = kind.library, Sparse(say)
        wide = artifact.quantisation.wide_nodes if artifact.quantisation else ()
        report = build_engine(
            graph,
            plan,
            library=library,
            precision=artifact.precision,
            options=BuildOptions(
                batches=key.batches,
                workspace_mib=options.workspace_mib,
                version_compatible=options.version_compatible and library.version_compatible,
                hardware_compatible=options.hardware_compatible,
                timing_cache=timing_cache,
            ),
            on_progress=lambda what, share: sparse(f"{what}: {share:.0%}"),
            wider=frozenset(wide),
        )
        return asdict(report)

    return build
