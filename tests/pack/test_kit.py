"""What `pack` writes, and what it leaves where it cannot."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.errors import BundleError, OutputError, UsageError
from sshr_deploy.pack import kit as kit_module
from sshr_deploy.pack.kit import PackSettings, pack, work_folder
from sshr_deploy.pack.targets import TARGETS, TargetName

SMALL = 10**6  # bytes; the settings split above 1 MB


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_kit_holds_wheels_bundle_and_what_installs_them(packed: Path) -> None:
    (big,) = (packed / "wheels").glob("engine_cpu*.part001")
    parts = {f"wheels/{big.name[:-1]}{number}" for number in (1, 2, 3)}
    assert names(packed) - parts == {
        "README.txt",
        "SHA256SUMS",
        "kit.json",
        "install.py",
        "install.sh",
        "bundle/manifest.json",
        "bundle/model.onnx",
        "bundle/reference.npz",
        "wheels/sshr_deploy-0.1.0-py3-none-any.whl",
        "wheels/needed-1.2-py3-none-any.whl",
        "wheels/deeper-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    }
    assert parts <= names(packed)


def test_kit_json_says_what_it_is_for(packed: Path) -> None:
    kit = json.loads((packed / "kit.json").read_text("utf-8"))
    assert kit["target"] == "linux-x86_64-cpu"
    assert (kit["python"], kit["system"], kit["machine"]) == ("3.11", "Linux", "x86_64")
    assert kit["glibc"] == "2.17"
    assert kit["extras"] == ["cpu", "view", "watch"]
    found = [(package["name"], package["version"]) for package in kit["packages"]]
    assert found[0][0] == "sshr-deploy"
    assert found[1:] == [("deeper", "1.0"), ("engine-cpu", "1.0"), ("needed", "1.2")]


def test_every_file_and_part_has_its_hash(packed: Path, index: Path) -> None:
    kit = json.loads((packed / "kit.json").read_text("utf-8"))
    stored = set()
    for entry in kit["files"]:
        content = b""
        for part in entry["parts"] or [entry]:
            piece = (packed / part["name"]).read_bytes()
            assert hashlib.sha256(piece).hexdigest() == part["sha256"]
            assert len(piece) == part["bytes"] <= SMALL
            stored.add(part["name"])
            content += piece
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert len(content) == entry["bytes"]
        if entry["name"].startswith("wheels/engine_cpu"):
            assert content == (index / Path(entry["name"]).name).read_bytes()
    assert stored == names(packed) - {"kit.json", "SHA256SUMS"}


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_checks_it(kit: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=kit, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(names(kit)) - 1
    (kit / "bundle" / "model.onnx").write_bytes(b"another graph")
    assert subprocess.run(command, cwd=kit, capture_output=True, check=False).returncode == 1


def test_without_a_limit_nothing_is_split(
    tmp_path: Path, bundle_dir: Path, settings: PackSettings
) -> None:
    out = tmp_path / "neue Ablage" / "kit"
    kit = pack(bundle_dir, out, replace(settings, max_part_mb=None))
    assert kit.sha256 == hashlib.sha256((out / "kit.json").read_bytes()).hexdigest()
    assert kit.bytes == sum((out / name).stat().st_size for name in names(out))
    assert kit.wheels == len(list((out / "wheels").iterdir())) == 4
    assert [path.name for path in out.parent.iterdir()] == ["kit"]  # no work folder stays


def test_an_existing_kit_is_replaced_when_asked_only(
    kit: Path, bundle_dir: Path, settings: PackSettings
) -> None:
    before = (kit / "kit.json").read_bytes()
    with pytest.raises(UsageError, match="exists; add `overwrite`"):
        pack(bundle_dir, kit, settings)
    assert (kit / "kit.json").read_bytes() == before
    (kit / "bundle" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds more than a kit .*notes.txt"):
        pack(bundle_dir, kit, replace(settings, overwrite=True))
    (kit / "bundle" / "notes.txt").unlink()
    pack(bundle_dir, kit, replace(settings, overwrite=True, max_part_mb=None))
    assert not list(kit.rglob("*.part001"))
    assert [path.name for path in kit.parent.iterdir()] == [kit.name]


@pytest.mark.parametrize("what", ["file", "folder", "broken kit"])
def test_what_is_no_kit_stays(
    what: str, kit: Path, tmp_path: Path, bundle_dir: Path, settings: PackSettings
) -> None:
    out = tmp_path / "out"
    if what == "file":
        out.write_text("mine")
    elif what == "folder":
        out.mkdir()
        (out / "slides.txt").write_text("mine")
    else:
        out = kit
        (out / "kit.json").write_bytes((out / "kit.json").read_bytes()[:100])
    before = names(out)
    with pytest.raises(UsageError, match="is no whole kit; choose another `out`"):
        pack(bundle_dir, out, replace(settings, overwrite=True))
    assert out.exists()
    assert names(out) == before


def test_an_altered_bundle_is_not_packed(
    tmp_path: Path, bundle_dir: Path, settings: PackSettings
) -> None:
    altered = Path(shutil.copytree(bundle_dir, tmp_path / "altered"))
    (altered / "model.onnx").write_bytes(b"GRAPH" * 1000)
    with pytest.raises(BundleError, match=r"model\.onnx was changed"):
        pack(altered, tmp_path / "kit", settings)
    assert [path.name for path in tmp_path.iterdir()] == ["altered"]


def test_a_run_that_was_stopped_goes_on(
    tmp_path: Path, bundle_dir: Path, settings: PackSettings
) -> None:
    out = tmp_path / "kit"

    def stop(text: str) -> None:
        if text.startswith("[4/4]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(bundle_dir, out, settings, stop)
    kept = work_folder(out) / "wheels"
    (deeper,) = kept.glob("deeper*")
    (engine,) = kept.glob("engine_cpu*")
    assert not out.exists()
    before = deeper.stat()
    engine.write_bytes(engine.read_bytes()[:-1])  # as a full disk leaves it
    seen: dict[str, tuple[int, int]] = {}

    def look(text: str) -> None:
        if text == "writing the kit":
            for path in (deeper, engine):
                seen[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)

    pack(bundle_dir, out, settings, look)
    assert seen[deeper.name] == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]


def test_what_does_not_read_back_gets_no_name(
    tmp_path: Path, bundle_dir: Path, settings: PackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = kit_module._describe

    def describe_then_lose(kit: Path, *rest: Any) -> None:
        describe(kit, *rest)
        (kit / "install.py").write_bytes(b"")

    monkeypatch.setattr(kit_module, "_describe", describe_then_lose)
    with pytest.raises(OutputError, match="does not read back"):
        pack(bundle_dir, tmp_path / "kit", settings)
    assert not (tmp_path / "kit").exists()


def test_a_gpu_kit_needs_the_kernels(
    tmp_path: Path, bundle_dir: Path, settings: PackSettings
) -> None:
    rtx = replace(settings, target=TARGETS[TargetName.LINUX_RTX])
    with pytest.raises(UsageError, match=r"no GPU kernels for linux-x86_64-rtx.*make kernels"):
        pack(bundle_dir, tmp_path / "kit", rtx)
    assert not (tmp_path / "kit").exists()
