"""Messages of the library name settings; the command line names its options instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import typer

from sshr_deploy.cli import app
from sshr_deploy.cli.option_names import as_options
from tests.cli.command import run_here

LIBRARY = ("runtime", "export", "train", "benchmarks", "sshr_deploy")
OWN_PROGRAMS = ("sshr_deploy/cli/", "sshr_deploy/pack/install.py", "runtime/doctor/")
SETTING = re.compile(r"`([a-z][a-z0-9_]*)`")


def options() -> set[str]:
    """All options of all commands, "--mpp" and so on."""

    def walk(command: object) -> Iterator[str]:
        for sub in getattr(command, "commands", {}).values():
            yield from walk(sub)
        for parameter in getattr(command, "params", ()):
            yield from parameter.opts

    return {name for name in walk(typer.main.get_command(app)) if name.startswith("--")}


def messages(root: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each string of the library that is no docstring."""
    for folder in LIBRARY:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if name.startswith(OWN_PROGRAMS):
                continue
            tree = ast.parse(path.read_text("utf-8"))
            docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                match node:
                    case ast.Constant(value=str(text)) if id(node) not in docs:
                        yield f"{name}:{node.lineno}", text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("give it with `mpp` and `force_mpp`", "give it with --mpp and --force-mpp"),
        (
            "run `make kernels`, or `sshr-deploy doctor`",
            "run `make kernels`, or `sshr-deploy doctor`",
        ),
    ],
)
def test_settings_become_options(text: str, shown: str) -> None:
    assert as_options(text) == shown


def test_every_setting_in_a_message_is_an_option(repo_root: Path) -> None:
    known = options()
    named = [(place, name) for place, text in messages(repo_root) for name in SETTING.findall(text)]
    assert len(named) > 30
    assert [(place, name) for place, name in named if as_options(f"`{name}`") not in known] == []


NAMED = ("export it with --engine", "`sshr-deploy ", "pip install", "--nproc-per-node", "usage: ")
"""Parts of messages that name a command with its options, which is right in the library too."""
PROGRAMS = (
    *(
        f"benchmarks/{name}"
        for name in (
            *("adaptation", "constructed_", "field_", "fit_curve", "gate/", "gpu/", "hfrm_forms"),
            *("modes", "seamless", "widened"),
        )
    ),
    "runtime/kernels/",
)
"""Modules that are run with options of their own."""
SOURCES = ("--mpp", "--threads")
"""Where a value came from, as documents have it."""


def test_no_other_message_holds_an_option(repo_root: Path) -> None:
    known, flag = options(), re.compile(r"(?<![\w-])--[a-z][a-z-]*")
    found = [
        (place, text)
        for place, text in messages(repo_root)
        if known & set(flag.findall(text))
        and not any(part in text for part in NAMED)
        and not text.startswith(SOURCES)
        and not place.startswith(PROGRAMS)
        and not place.startswith("sshr_deploy/pack/")
    ]
    assert found == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("infer {slide} --model {bundle} --out {new} --force-mpp", "--force-mpp needs the"),
        ("infer {bare} --model {bundle} --out {new}", "give it in um per pixel with --mpp"),
        ("infer {slide} --model {bundle} --out {file}", "--out {file} cannot be made a folder"),
        ("infer {slide} --model {bundle} --out {new} --engine tensorrt", "export it with"),
        ("export {checkpoint} --out {new}", "give --profile"),
        ("export {checkpoint} --profile wsss4luad --out {bundle}", "add --overwrite to replace"),
        ("benchmark latency {bundle} --batches 0", "--batches '0': give whole numbers"),
        ("pack --model {bundle} --target linux-x86_64-cpu --out {folder}", "choose another --out"),
        ("train {folder} --profile luad --recipe smoke --out {folder}", "--out"),
        ("engines verify {bundle}", ""),
        ("doctor", "processor"),
    ],
)
def test_what_is_shown_names_options_and_no_setting(
    small_bundle_dir: Path, small_checkpoint: Path, demo_slide: Path, tmp_path: Path,
    words: str, says: str,
) -> None:  # fmt: skip
    paths = {
        "slide": demo_slide, "bundle": small_bundle_dir, "checkpoint": small_checkpoint,
        "new": tmp_path / "new", "file": tmp_path / "file", "folder": tmp_path / "folder",
        "bare": tmp_path / "bare.tif",
    }  # fmt: skip
    paths["file"].touch()
    paths["folder"].mkdir()
    (paths["folder"] / "something").touch()
    tifffile.imwrite(paths["bare"], np.full((64, 64, 3), 200, np.uint8), photometric="rgb")
    done = run_here(*(word.format(**paths) for word in words.split()))
    shown = done.stdout + done.stderr
    assert says.format(**paths) in shown, shown
    assert SETTING.findall(shown) == [], shown
    if (tmp_path / "new" / "run.json").exists():
        assert SETTING.findall((tmp_path / "new" / "run.json").read_text("utf-8")) == []
