"""`sshr-deploy adapt` as a person runs it, and what becomes of its checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.bundle import load_bundle
from sshr_deploy.export.bundle import export_bundle
from sshr_deploy.export.graph.deploy import HfrmForm
from sshr_deploy.export.job import ExportOptions
from sshr_deploy.export.reference import shipped_patches
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.slides import open_slide, read_area, resolve_mpp
from sshr_deploy.train.adaptation.tuning import Tuning
from tests.cli.command import Done, run_here


def run(*args: str | Path) -> Done:
    return run_here("adapt", *args)


def document(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def checkpoint(own_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`own_checkpoint`, by a recipe that lets batch norms learn."""
    from sshr_deploy.model.checkpoint import read_header

    path = tmp_path_factory.mktemp("learn") / "learn.safetensors"
    header = {**read_header(own_checkpoint), "recipe": '{"batch_norm": "learn"}'}
    save_checkpoint(load_checkpoint(own_checkpoint), path, metadata=header)
    return path


@pytest.fixture(scope="module")
def slides(demo_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three fields of the demo slide."""
    folder = tmp_path_factory.mktemp("slides") / "lab-b"
    folder.mkdir()
    with open_slide(demo_slide) as reader:
        mpp = resolve_mpp(reader, None)
        for index in range(3):
            rgb = read_area(
                reader,
                mpp,
                target_mpp_um=1.0,
                l0_x=680 + 400 * index,
                l0_y=2020,
                width_px=224,
                height_px=224,
            )
            Image.fromarray(rgb).save(folder / f"{index}.png")
    return folder


def test_an_adapted_network_goes_on_to_results_that_say_so(
    checkpoint: Path, slides: Path, profile: Profile, demo_slide: Path, tmp_path: Path
) -> None:
    new, figures, bundle, out = (tmp_path / n for n in ("new.safetensors", "a.json", "b", "out"))
    done = run(checkpoint, "--slides", slides, "--out", new, "--json", figures, "--force")
    assert done.returncode == 0, done.stderr
    for word in ("tumour", "entropy", "labels agree on", "3 images of lab-b", str(new)):
        assert word in done.stdout
    assert "give --mpp if theirs is another" in done.stderr
    record = document(figures)
    assert (record["depth"], record["balance"], record["slides"]) == ("b3", "slides", 3)
    options = ExportOptions(form=HfrmForm.DEPTHWISE, field_px=0)
    export_bundle(new, profile, bundle, shipped_patches(), options)
    stated = load_bundle(bundle).manifest.model
    assert stated.adaptation is not None and stated.known_tissue is not None
    assert stated.adaptation.model_dump(mode="json") == record
    done = run_here("infer", demo_slide, "--model", bundle, "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    (summary,) = out.rglob("summary.json")
    for path in (summary, out / "run.json"):
        assert document(path)["bundle"]["adaptation"] == record
    back = tmp_path / "back.safetensors"
    done = run(new, "--undo", "--out", back)
    assert (done.returncode, done.stdout) == (0, f"{back}\n")
    before, after = (load_checkpoint(path).state_dict() for path in (checkpoint, back))
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["{checkpoint}"], "give --slides"),
        (["{bundle}", "--slides", "{slides}"], "small.safetensors"),
        (["{checkpoint}", "--slides", "{slides}", "--undo"], "leave one of them out"),
        (["{checkpoint}", "--undo"], "was not adapted"),
        (["{own}", "--slides", "{slides}"], "give the folder of its training set with --training"),
        (["{small}", "--slides", "{slides}"], "give --profile"),
        (["{checkpoint}", "--slides", "{slides}", "--depth", "b9"], "--depth 'b9' is no stage"),
        (["{checkpoint}", "--slides", "{slides}", "--strength", "2"], "--strength is 2.0"),
        (["{checkpoint}", "--slides", "{one}"], "give at least 3"),
        (["{checkpoint}", "--slides", "{glass}"], "nothing in it shows tissue"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    checkpoint: Path, own_checkpoint: Path, small_checkpoint: Path, small_bundle_dir: Path,
    slides: Path, tmp_path: Path, args: list[str], named: str,
) -> None:  # fmt: skip
    glass = tmp_path / "glass.png"
    Image.new("RGB", (224, 224), (245, 245, 245)).save(glass)
    places = {
        "checkpoint": checkpoint, "own": own_checkpoint, "small": small_checkpoint,
        "bundle": small_bundle_dir, "slides": slides, "one": slides / "0.png", "glass": glass,
    }  # fmt: skip
    out = tmp_path / "new.safetensors"
    done = run(*(a.format(**places) for a in args), "--out", out, "--quiet")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert named in line
    assert not out.exists()


@pytest.mark.parametrize("over", ["{checkpoint}", "{out}"])
def test_figures_never_replace_a_checkpoint(
    checkpoint: Path, slides: Path, tmp_path: Path, over: str
) -> None:
    out, before = tmp_path / "new.safetensors", checkpoint.read_bytes()
    figures = over.format(checkpoint=checkpoint, out=out)
    done = run(checkpoint, "--slides", slides, "--out", out, "--json", figures)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert f"--json {figures} is" in line
    assert checkpoint.read_bytes() == before
    assert not out.exists()


def test_the_help_states_the_defaults_there_are() -> None:
    text = " ".join(re.sub("[│]", " ", run("--help").stdout).split())
    usual = Tuning()
    for default in (usual.depth, usual.balance, f"{usual.strength:g}", f"{usual.min_spread:g}"):
        assert f"[default: ({default})]" in text
