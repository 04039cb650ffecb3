"""A kit that is not what was packed is told, whatever was done to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.pack import install
from sshr_deploy.pack.install import KitError, find_problems, is_safe
from tests.pack.kit_script import change_a_byte, run, set_field
from tests.pack.stand_ins import edit_kit


def test_a_whole_kit_verifies(kit: Path) -> None:
    done = run(kit, "verify")
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256((kit / "kit.json").read_bytes()).hexdigest()
    assert f"is whole; SHA-256 of kit.json: {digest}" in done.stderr
    assert find_problems(kit) == []


def test_everything_that_differs_is_listed(kit: Path) -> None:
    (wheel,) = (kit / "wheels").glob("needed*.whl")
    (part,) = (kit / "wheels").glob("*.part002")
    change_a_byte(wheel)
    part.unlink()
    (kit / "bundle" / "model.onnx").write_bytes(b"short")
    (kit / "README.txt").unlink()
    (kit / "README.txt").symlink_to(kit / "install.sh")
    (kit / "wheels" / "extra.whl").touch()
    (kit / "more" / "below").mkdir(parents=True)
    (kit / "SHA256SUMS").unlink()
    done = run(kit, "verify")
    assert done.returncode == 1
    assert sorted(done.stderr.splitlines()[:-1]) == sorted(
        [
            f"changed: wheels/{wheel.name} (SHA-256 differs)",
            f"missing: wheels/{part.name}",
            "changed: bundle/model.onnx has 5 bytes, not 5000",
            "changed: README.txt is not a regular file",
            "extra: wheels/extra.whl",
            "extra: more/",
            "missing: SHA256SUMS",
        ]
    )
    assert done.stderr.splitlines()[-1].endswith("not what was packed: 7 difference(s)")


def truncate(kit: Path) -> None:
    (kit / "kit.json").write_bytes((kit / "kit.json").read_bytes()[:200])


def set_file(field: str, value: object) -> Callable[[Path], None]:
    def change(content: dict[str, Any]) -> None:
        content["files"][0][field] = value

    return lambda kit: edit_kit(kit, change)


def set_package(field: str, value: object) -> Callable[[Path], None]:
    def change(content: dict[str, Any]) -> None:
        content["packages"][0][field] = value

    return lambda kit: edit_kit(kit, change)


def wrong_join(kit: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        (entry,) = [entry for entry in content["files"] if entry["parts"]]
        entry["parts"].reverse()

    edit_kit(kit, change)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (lambda kit: (kit / "kit.json").unlink(), "has no kit.json"),
        (truncate, "kit.json cannot be read"),
        (lambda kit: (kit / "kit.json").write_text("[" * 100_000), "kit.json cannot be read"),
        (lambda kit: (kit / "kit.json").write_bytes(b"\xff\xfe"), "kit.json cannot be read"),
        (lambda kit: (kit / "kit.json").write_text("[]"), "has schema None"),
        (set_field("kit_schema", 2), "has schema 2 and this program reads 1"),
        (set_field("target", "another", rehash=False), "was changed after the kit was packed"),
        (set_field("surprise", 1), "fields ['surprise']"),
        (set_field("packages", "no list"), "packages"),
        (set_field("packages", [1]), "not valid"),
        (set_field("extras", ["cpu] @ evil"]), "extras"),
        (set_field("python", "3.11; rm"), "python"),
        (set_file("name", "../README.txt"), "file name '../README.txt'"),
        (set_file("name", "/etc/passwd"), "file name '/etc/passwd'"),
        (set_file("name", "a\\..\\..\\b"), "file name"),
        (set_file("name", "C:evil"), "file name"),
        (set_file("name", "kit.json"), "a file name occurs twice"),
        (set_file("bytes", "12"), "size of"),
        (set_file("bytes", True), "size of"),
        (set_file("sha256", "0"), "hash of"),
        (set_package("name", "--index-url"), "package '--index-url'"),
        (set_package("version", "1 --pre"), "version of"),
        (set_package("sha256", "1"), "hash of"),
        (wrong_join, "do not give that file"),
    ],
)
def test_attacks_on_the_description(
    attack: Callable[[Path], object], words: str, kit: Path, tmp_path: Path
) -> None:
    attack(kit)
    (problem,) = find_problems(kit)
    assert words in problem
    assert "\n" not in problem
    with pytest.raises(KitError):
        install.install(kit, tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


def test_a_changed_list_of_sums_is_noticed(kit: Path) -> None:
    change_a_byte(kit / "SHA256SUMS")
    assert find_problems(kit) == ["changed: SHA256SUMS (SHA-256 differs)"]


def test_a_linked_folder_is_no_part_of_a_kit(kit: Path, tmp_path: Path) -> None:
    (kit / "wheels").rename(tmp_path / "elsewhere")
    (kit / "wheels").symlink_to(tmp_path / "elsewhere")
    assert find_problems(kit) == ["extra: wheels/"]


@pytest.mark.parametrize("name", ["a", "a/b c", "ä/ö.whl", "a..b"])
def test_plain_names_are_safe(name: str) -> None:
    assert is_safe(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/..", "../a", "/a", "a//b", "a/", "./a", "a\nb", "a:b", "a\\b", 1]
)
def test_other_names_are_not(name: object) -> None:
    assert not is_safe(name)
