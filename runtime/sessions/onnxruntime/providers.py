"""Execution providers of ONNX Runtime; `engines.kinds` has those of the engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """A provider of ONNX Runtime, with the options of an engine."""

    name: str
    extra: str
    """Of this project, that installs it."""
    options: Mapping[str, str] = field(default_factory=dict)
    buffers: str | None = None
    """Device type of input and outputs that stay bound; None leaves them to ONNX Runtime."""
    libraries: tuple[str, ...] = ()
    """Distributions whose code computes beside onnxruntime's own, under all their names."""
    prefix: str | None = None
    """Of the options of one that builds an engine for a range of batches; None for the others."""
    cache_options: Mapping[str, str] = field(default_factory=dict)
    """With {folder} for where it keeps what it built; it may write there only while it builds."""
    plugin: str | None = None
    """Module that brings it; None where it is a part of onnxruntime."""
    on_trial: Mapping[str, str] = field(default_factory=dict)
    """Options that change only the speed; each machine tries them when it qualifies the engine."""

    @property
    def package(self) -> str | None:
        """On PyPI, of the plug-in."""
        return None if self.plugin is None else self.plugin.replace("_", "-")


CPU = Provider(CPU_PROVIDER, "cpu")
