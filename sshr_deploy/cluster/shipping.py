"""A bundle that a machine of the cluster does not have: kept there, whole, under its hash."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sshr_deploy.atomic import partial_folder, replace_folder
from sshr_deploy.bundle import MANIFEST_NAME, Bundle, load_bundle, read_manifest
from sshr_deploy.errors import BundleError, OutputError

Fetch = Callable[[], dict[str, Callable[[], bytes]]]
"""Asks for the files of a bundle by name; each is brought when it is called."""


def bundle_at(path: Path, manifest_sha256: str, fetch: Fetch, kept_in: Path) -> Bundle:
    """The bundle of that hash: the one at `path`, one kept before, or one that is fetched.

    Args:
        path: where it may be.
        manifest_sha256: of the bundle that is wanted.
        fetch: asked only where it is nowhere here.
        kept_in: folder for bundles that were fetched, each in a folder of its hash.

    Raises:
        BundleError: a file of it was changed here, or on its way.
        OutputError: it cannot be kept.
    """
    kept = kept_in / manifest_sha256
    for folder in (path, kept):
        if _hash_at(folder) == manifest_sha256:
            return load_bundle(folder)
    try:
        with partial_folder(kept) as partial:
            for name, bring in fetch().items():
                (partial / name).write_bytes(bring())
            _check(load_bundle(partial), manifest_sha256)
            if _hash_at(kept) != manifest_sha256:  # another worker of this machine may be first
                _place(partial, kept)
    except OSError as error:
        raise OutputError(
            f"the bundle cannot be kept in {kept_in}: {error.strerror}; free space, or set "
            "XDG_CACHE_HOME to another folder"
        ) from error
    return load_bundle(kept)


def file_names(bundle: Bundle) -> list[str]:
    """Files to send of a bundle; what machines built from it stays where it is."""
    return [MANIFEST_NAME, *bundle.manifest.files]


def kept_bundles() -> Path:
    """Folder of this user for bundles that were fetched."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "sshr-deploy" / "bundles"


def _hash_at(folder: Path) -> str | None:
    try:
        return read_manifest(folder)[1]
    except BundleError:
        return None


def _check(bundle: Bundle, manifest_sha256: str) -> None:
    if bundle.manifest_sha256 != manifest_sha256:
        raise BundleError("the bundle was changed while it was sent; start again")


def _place(partial: Path, kept: Path) -> None:
    try:
        replace_folder(partial, kept)
    except OSError:
        if _hash_at(kept) is None:
            raise
