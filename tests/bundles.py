"""Bundles that tests may change."""

from __future__ import annotations

import shutil
from pathlib import Path

from sshr_deploy.runtime.engines.store import EngineStore


def copy_without_field_engines(source: Path, to: Path) -> Path:
    """A copy of a bundle, as if nobody had opened its graphs for fields yet."""
    store = EngineStore(Path(shutil.copytree(source, to)))
    for entry in store.entries():
        if entry.key is not None and not entry.key.for_patches:
            store.remove(entry)
    return to
