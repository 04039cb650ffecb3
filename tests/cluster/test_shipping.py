"""A bundle that a machine lacks: fetched once, checked, and kept under its hash."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sshr_deploy.bundle import load_bundle
from sshr_deploy.cluster.shipping import bundle_at, file_names
from sshr_deploy.errors import BundleError


def fetched(source: Path, *, changed: str = "") -> dict[str, Callable[[], bytes]]:
    bundle = load_bundle(source)
    files: dict[str, Callable[[], bytes]] = {
        name: (source / name).read_bytes for name in file_names(bundle)
    }
    if changed:
        files[changed] = partial(bytes, bundle.manifest.files[changed].bytes)
    return files


def refused() -> dict[str, Callable[[], bytes]]:
    raise AssertionError("it was fetched")


def test_the_bundle_at_its_path_is_taken(small_bundle_dir: Path, tmp_path: Path) -> None:
    digest = load_bundle(small_bundle_dir).manifest_sha256
    assert bundle_at(small_bundle_dir, digest, refused, tmp_path).path == small_bundle_dir


def test_one_that_is_not_here_is_fetched_once(small_bundle_dir: Path, tmp_path: Path) -> None:
    wanted = load_bundle(small_bundle_dir)
    fetch = partial(fetched, small_bundle_dir)
    for again in (fetch, refused):
        found = bundle_at(tmp_path / "none", wanted.manifest_sha256, again, tmp_path / "kept")
        assert found.path == tmp_path / "kept" / wanted.manifest_sha256
        assert found.manifest == wanted.manifest
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [wanted.manifest_sha256]


def test_one_that_changed_on_its_way_is_refused(small_bundle_dir: Path, tmp_path: Path) -> None:
    wanted = load_bundle(small_bundle_dir)
    fetch = partial(fetched, small_bundle_dir, changed=wanted.reference_file)
    with pytest.raises(BundleError, match="changed"):
        bundle_at(tmp_path / "none", wanted.manifest_sha256, fetch, tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())
