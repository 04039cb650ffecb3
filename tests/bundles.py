"""Bundles that tests may change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.bundle import FIRST_LAYER_NAME, file_entry, read_manifest, write_manifest
from sshr_deploy.known_tissue import Appearance, KnownTissue
from sshr_deploy.runtime.engines.store import EngineStore


def copy_without_field_engines(source: Path, to: Path) -> Path:
    """A copy of a bundle, as if nobody had opened its graphs for fields yet."""
    store = EngineStore(Path(shutil.copytree(source, to)))
    for entry in store.entries():
        if entry.key is not None and not entry.key.for_patches:
            store.remove(entry)
    return to


def copy_that_knows(
    source: Path, to: Path, appearance: Appearance, first_layer: NDArray[Any]
) -> Path:
    """A copy of a bundle that states which tissue its network knows."""
    shutil.copytree(source, to)
    np.save(to / FIRST_LAYER_NAME, first_layer)
    manifest, _ = read_manifest(to)
    known = KnownTissue(source="a test", patches=1, class_shares=None, appearance=appearance)
    model = manifest.model.model_copy(update={"known_tissue": known})
    files = {**manifest.files, FIRST_LAYER_NAME: file_entry(to / FIRST_LAYER_NAME)}
    write_manifest(to, manifest.model_copy(update={"model": model, "files": files}))
    return to
