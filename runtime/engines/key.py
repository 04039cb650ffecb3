"""Key of an engine: all that it was built from and for. It is used only where all is as it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from sshr_deploy.geometry import PATCH


@dataclass(frozen=True)
class EngineKey:
    """Identity of an engine, or of what was found out about a graph on one machine."""

    engine: str
    """A name of `kinds.ENGINES`."""
    precision: str
    inputs: str
    """See `Geometry.inputs`."""
    model_sha256: str
    """Of the graph and its weights."""
    reference_sha256: str
    """Of the patches that it is qualified on."""
    batches: tuple[int, ...]
    """Static batch sizes; empty where the engine takes any."""
    library: str
    """Library and exact version, "tensorrt-rtx 1.7.1.116"."""
    device: str
    """Name of the GPU or the processor."""
    sm: int | None
    """89 for SM 8.9; None on a CPU."""
    driver: str | None
    sshr_deploy: str
    """Version of this package, whose sessions run it."""
    rule: str
    """CAM weights and gate, by which it was compared."""
    options: str
    """How it was built, or what it was timed against; empty where neither was."""
    kernels_sha256: str | None
    """Of the precompiled kernels that the session launches; None where it launches none."""

    @property
    def for_patches(self) -> bool:
        """Whether its inputs are patches, not fields."""
        return self.inputs == PATCH.inputs

    @property
    def slot(self) -> str:
        """Name of the folder for it: readable, and different for every key."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.engine}-{self.precision}-{digest[:12]}"

    def differences(self, now: EngineKey) -> list[str]:
        """Fields that are not as they were, "driver 580.65 -> 581.15" each."""
        said = []
        for field in fields(self):
            before, after = getattr(self, field.name), getattr(now, field.name)
            if before != after:
                said.append(f"{field.name} {_text(before)} -> {_text(after)}")
        return said


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value)) or "any"
    text = "none" if value is None else str(value)
    return text[:12] if len(text) == 64 else text  # a hash
