from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.bundle import MANIFEST_NAME, load_bundle
from sshr_deploy.errors import BundleError
from sshr_deploy.known_tissue import Appearance
from tests.bundles import copy_that_knows

LOOK = Appearance(
    density_mean=(0.3, 0.6, 0.3),
    density_spread=(0.2, 0.3, 0.2),
    density_correlation=(0.9, 0.9, 0.9),
    layer_mean=(0.1, -0.1),
    layer_spread=(1.0, 2.0),
)


@pytest.fixture
def bundle_dir(small_bundle_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle_dir, tmp_path / "bundle"))


def _edit(folder: Path, change: Callable[[dict[str, Any]], None], *, rehash: bool) -> None:
    """Change the manifest; with `rehash` as somebody would who knows how it is hashed."""
    file = folder / MANIFEST_NAME
    content = json.loads(file.read_text())
    change(content)
    if rehash:
        content.pop("self_sha256")
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        content["self_sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    file.write_text(json.dumps(content))


def test_a_whole_bundle_loads(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    assert bundle.file("model.onnx").is_file()
    (artifact,) = bundle.artifacts("onnx-cpu")
    assert artifact.precision == "fp32"
    assert bundle.artifacts("tensorrt") == []
    of_patches = {"model.onnx", "model.onnx.data", "reference.npz"}
    of_fields = {"field.onnx", "field-gpu.onnx", "reference-fields.npz"}
    assert set(bundle.manifest.files) == of_patches | of_fields


def test_reformatting_the_manifest_is_harmless(bundle_dir: Path) -> None:
    before = load_bundle(bundle_dir)
    _edit(bundle_dir, lambda content: None, rehash=False)
    assert load_bundle(bundle_dir) == before


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "reference.npz"])
@pytest.mark.parametrize("place", [0, -1, 1000])
def test_one_changed_byte_is_refused_naming_the_file(
    bundle_dir: Path, name: str, place: int
) -> None:
    path = bundle_dir / name
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} was changed"):
        load_bundle(bundle_dir)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_truncated_and_missing_files_are_refused_naming_them(bundle_dir: Path, name: str) -> None:
    path = bundle_dir / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{name} has \d+ bytes, the manifest says"):
        load_bundle(bundle_dir)
    path.unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        load_bundle(bundle_dir)


def test_every_byte_of_the_manifest_counts(bundle_dir: Path) -> None:
    file = bundle_dir / MANIFEST_NAME
    whole = file.read_bytes()
    refused = 0
    for place in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        if whole[place : place + 1].isspace():
            continue
        with pytest.raises(BundleError):
            load_bundle(bundle_dir)
        refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "a/../../b",
        "C:\\secret",
        "..\\secret",
        "",
        "a\nb",
        "\ud800",
        "\\\\host\\share",
    ],
)
def test_names_that_leave_the_folder_are_refused(bundle_dir: Path, name: str) -> None:
    def add(content: dict[str, Any]) -> None:
        content["files"][name] = {"bytes": 1, "sha256": "0" * 64}

    _edit(bundle_dir, add, rehash=True)
    with pytest.raises(BundleError, match="leaves the bundle's folder"):
        load_bundle(bundle_dir)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_link_out_of_the_folder_is_refused(bundle_dir: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (bundle_dir / "model.onnx").rename(outside)
    (bundle_dir / "model.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="link out of its folder"):
        load_bundle(bundle_dir)


@pytest.mark.skipif(os.name == "nt", reason="links and pipes")
@pytest.mark.parametrize("kind", ["loop", "pipe", "folder"])
def test_what_is_no_file_is_refused_at_once(bundle_dir: Path, kind: str) -> None:
    path = bundle_dir / "model.onnx"
    path.unlink()
    if kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(BundleError, match=r"model\.onnx (is not a file|cannot be read)"):
        load_bundle(bundle_dir)


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_set(schema_version=99), "schema version 99, this release reads 2 and 3"),
        (_set(schema_version=None), "schema version None"),
        (_set(artifacts=[]), "artifacts"),
        (_set(surprise=1), "surprise"),
        (lambda m: m["model"].update(gflop_per_patch=float("nan")), "gflop_per_patch"),
        (lambda m: m["profile"].update(label_pattern="a{99999999999999999999}"), "label_pattern"),
        (lambda m: m["profile"].update(label_pattern="(" * 99 + ")" * 99), "flags"),
        (_set(schema_version="9" * 100_000), "schema version 9{20}, this"),
        (_set(files={"model.onnx": {"bytes": -1, "sha256": "0" * 64}}), "files.model.onnx.bytes"),
    ],
)
def test_unusable_manifests_are_refused_naming_the_field(
    bundle_dir: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    _edit(bundle_dir, change, rehash=True)
    with pytest.raises(BundleError, match=named) as caught:
        load_bundle(bundle_dir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "[" * 100_000, "\udcff"])
def test_files_that_are_no_manifest_are_refused(bundle_dir: Path, text: str) -> None:
    (bundle_dir / MANIFEST_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=MANIFEST_NAME):
        load_bundle(bundle_dir)


def test_a_huge_manifest_is_not_read(bundle_dir: Path) -> None:
    with (bundle_dir / MANIFEST_NAME).open("r+b") as file:
        file.truncate(1 << 33)
    with pytest.raises(BundleError, match="larger than 4 MiB"):
        load_bundle(bundle_dir)


def test_other_folders_are_no_bundles(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BundleError, match="is not a bundle"):
            load_bundle(path)


def test_unlisted_files_are_not_handed_out(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    with pytest.raises(BundleError, match=r"does not list other\.bin"):
        bundle.file("other.bin")


def test_the_first_layer_of_a_bundle_that_states_no_known_tissue_is_none(bundle_dir: Path) -> None:
    assert load_bundle(bundle_dir).first_layer() is None


def test_the_first_layer_comes_as_it_was_written(small_bundle_dir: Path, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
    folder = copy_that_knows(small_bundle_dir, tmp_path / "knows", LOOK, weights)
    np.testing.assert_array_equal(load_bundle(folder).first_layer(), weights)


@pytest.mark.parametrize(
    "weights",
    [
        np.zeros((3, 3, 3, 3), np.float32),  # of more channels than the manifest states
        np.zeros((2, 3, 3, 3), np.float64),
        np.array([{}], object),
    ],
)
def test_an_unusable_first_layer_is_refused_naming_the_file(
    small_bundle_dir: Path, tmp_path: Path, weights: NDArray[Any]
) -> None:
    folder = copy_that_knows(small_bundle_dir, tmp_path / "knows", LOOK, weights)
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match=r"first-layer.npy cannot be read: .*export the bundle"):
        bundle.first_layer()
