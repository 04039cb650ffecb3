"""Adaptation from file to file; `learned`, `scanned` and `tissue` are in conftest.py."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from sshr_deploy.bundle import file_entry
from sshr_deploy.errors import AdaptationError, CheckpointError, SshrDeployError, UsageError
from sshr_deploy.known_tissue import adaptation_of, known_tissue_of
from sshr_deploy.model.batch_norms import measure
from sshr_deploy.model.checkpoint import load_checkpoint, read_header, save_checkpoint
from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.train.adaptation.job import AdaptJob, adapt
from sshr_deploy.train.adaptation.original import read_original, undo_adaptation
from sshr_deploy.train.adaptation.tuning import Balance, Tuning, training_moments


def network(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(path).state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def job(learned: Path, profile: Profile, scanned: Path, tmp_path: Path) -> AdaptJob:
    return AdaptJob(learned, profile, scanned, tmp_path / "new.safetensors")


@pytest.fixture(scope="module")
def adapted(
    learned: Path, profile: Profile, scanned: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("adapted") / "adapted.safetensors"
    adapt(AdaptJob(learned, profile, scanned, out))
    return out


def test_the_new_checkpoint_says_what_it_is(
    learned: Path, adapted: Path, profile: Profile, tissue: NDArray[np.uint8]
) -> None:
    before, after = read_header(learned), read_header(adapted)
    assert all(after[key] == before[key] for key in ("profile", "recipe", "sshr_config"))
    done, known = adaptation_of(after, ""), known_tissue_of(after, "")
    assert done is not None and known is not None
    assert (done.slides, done.patches, done.depth, done.balance) == (4, 4, "b3", "slides")
    assert done.source == known.source == "4 tissue patches from 4 images of lab-b"
    assert done.original_sha256 == file_entry(learned).sha256
    assert done.forced == () and 0.5 < done.checks.agreement < 1
    earlier = known_tissue_of(before, "")
    assert earlier is not None and known.class_shares == earlier.class_shares
    assert known.appearance.density_mean[2] > earlier.appearance.density_mean[2]  # less blue
    changed = {n for n, v in network(learned).items() if not torch.equal(v, network(adapted)[n])}
    assert changed and all(name.startswith(("b2", "b3")) for name in changed)


def test_the_same_job_gives_the_same_weights_and_a_second_adaptation_starts_anew(
    job: AdaptJob, learned: Path, adapted: Path, tmp_path: Path
) -> None:
    adapt(job)
    assert same(network(job.out), network(adapted))
    other = replace(job, tuning=Tuning("b4", Balance.SLIDES, 0.5), overwrite=True)
    adapt(other)
    again = replace(other, checkpoint=adapted, out=tmp_path / "again.safetensors")
    record = adapt(again)
    assert same(load_file(job.out), load_file(again.out))
    assert record.original_sha256 == file_entry(learned).sha256


def test_strength_0_changes_no_bit_and_undo_gives_the_original_back(
    job: AdaptJob, learned: Path, adapted: Path, tmp_path: Path
) -> None:
    adapt(replace(job, checkpoint=adapted, tuning=Tuning(strength=0)))
    assert same(network(job.out), network(learned))
    out = tmp_path / "undone.safetensors"
    undo_adaptation(adapted, out)
    assert same(load_file(out), load_file(learned))
    assert read_header(out) == read_header(learned)
    with pytest.raises(UsageError, match="was not adapted, so there is nothing to undo"):
        undo_adaptation(learned, out)


def test_moments_and_class_shares_may_come_from_the_training_set(
    job: AdaptJob, small_checkpoint: Path, tissue: NDArray[np.uint8], tmp_path: Path
) -> None:
    authors = tmp_path / "authors.pth"
    model = load_checkpoint(small_checkpoint)
    torch.save(model.state_dict(), authors)
    with pytest.raises(CheckpointError, match="give the folder of its training set"):
        adapt(replace(job, checkpoint=authors))
    folder = tmp_path / "data" / "training"
    folder.mkdir(parents=True)
    for index, rgb in enumerate(tissue):
        Image.fromarray(rgb).save(folder / f"{index}.png")
    adapt(replace(job, checkpoint=authors, training=tmp_path / "data", force=True))
    stored = training_moments(job.out, read_original(job.out).model)
    expected = measure(model, tissue)
    for name, pair in stored.items():
        torch.testing.assert_close(pair.mean, expected[name].mean, rtol=1e-9, atol=1e-9)
    assert "profile" in read_header(job.out)


def test_classes_are_balanced_only_where_their_shares_are_known(
    job: AdaptJob, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.safetensors"
    save_checkpoint(
        load_checkpoint(job.checkpoint), plain, metadata={"recipe": '{"batch_norm": "learn"}'}
    )
    classes = replace(job.tuning, balance=Balance.CLASSES)
    with pytest.raises(UsageError, match=r"which shares of classes .* `training`, or `balance`"):
        adapt(replace(job, checkpoint=plain, tuning=classes))


def test_objections_end_it_or_are_recorded(
    job: AdaptJob, scanned: Path, learned: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(scanned / "0.png", few)
    with pytest.raises(
        AdaptationError, match=r"is not adapted: .*: 1, too few.* at least 3.*`force`"
    ):
        adapt(replace(job, slides=few))
    assert not job.out.exists()
    said: list[str] = []
    record = adapt(replace(job, slides=few, force=True), said.append)
    assert "give at least 3" in record.forced[0]
    assert f"overruled: {record.forced[0]}" in said
    assert adaptation_of(read_header(job.out), "") == record


def test_labels_decide_where_there_are_any(
    job: AdaptJob, tissue: NDArray[np.uint8], tmp_path: Path
) -> None:
    split = tmp_path / "val"
    for part in ("img", "mask"):
        (split / part).mkdir(parents=True)
    for index, rgb in enumerate(tissue):
        Image.fromarray(rgb).save(split / "img" / f"{index}.png")
        Image.fromarray(rgb[..., 1] // 86).save(split / "mask" / f"{index}.png")
    record = adapt(replace(job, qualify=split, force=True))
    checks = record.checks
    assert checks.mean_iou_before is not None and checks.mean_iou_after is not None
    assert checks.mean_iou_gain_interval is not None
    worse = checks.mean_iou_after < checks.mean_iou_before
    assert worse == any("mean IoU" in line for line in record.forced)


def test_a_slide_of_another_kind_is_left_out(job: AdaptJob, scanned: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scanned, tmp_path / "mixed"))
    with Image.open(folder / "0.png") as image:
        dark = (255 - np.asarray(image)) // 3
    Image.fromarray(dark.astype(np.uint8)).save(folder / "fluorescent.png")
    said: list[str] = []
    assert adapt(replace(job, slides=folder), said.append).slides == 4
    assert any("left out: " in line and "does not look like H&E" in line for line in said)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"out": Path("new.pth")}, "give a name that ends in .safetensors"),
        ({"slides": Path("nowhere")}, "nowhere cannot be read"),
        ({"training": Path("nowhere")}, "nowhere cannot be read"),
        ({"qualify": Path("nowhere")}, "no folders img and mask"),
        ({"patches": 0}, "`patches` is 0; give a whole number"),
        ({"patches": 2}, "`patches` is 2, too few for one of each of 3 slides"),
        ({"profile": load_profile("luad")}, "leave `profile` out"),
    ],
)
def test_wrong_usage_is_one_line_before_any_work(
    job: AdaptJob, fields: dict[str, object], words: str
) -> None:
    with pytest.raises(SshrDeployError, match=words):
        adapt(replace(job, **fields))  # type: ignore[arg-type]
    assert not job.out.exists()


def test_labels_that_cannot_be_used_are_told_before_any_tissue_is_measured(
    job: AdaptJob, scanned: Path, profile: Profile, tmp_path: Path
) -> None:
    split = tmp_path / "labelled"
    for name in ("img", "mask"):
        (split / name).mkdir(parents=True)
    Image.open(scanned / "0.png").save(split / "img" / "0.png")
    mask = Image.new("P", (224, 224))
    mask.putpalette([0, 0, 0] * (profile.num_classes - 1) + [255, 255, 255])
    mask.putpixel((0, 0), profile.num_classes - 1)
    steps: list[str] = []
    for value in (mask, Image.new("L", (224, 224), profile.num_classes + 7)):
        value.save(split / "mask" / "0.png")
        with pytest.raises(SshrDeployError) as caught:
            adapt(replace(job, qualify=split), steps.append)
        assert "`relabel`" not in str(caught.value)  # there is no such option
    assert not any("choosing patches" in step for step in steps)


def test_neither_the_input_nor_another_file_is_written_over(job: AdaptJob) -> None:
    before = job.checkpoint.read_bytes()
    with pytest.raises(UsageError, match="is the checkpoint that is read"):
        adapt(replace(job, out=job.checkpoint, overwrite=True))
    assert job.checkpoint.read_bytes() == before
    job.out.write_text("mine")
    with pytest.raises(UsageError, match="exists; add `overwrite`"):
        adapt(job)
    assert job.out.read_text() == "mine"


def test_original_statistics_that_are_gone_are_told(adapted: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    save_checkpoint(load_checkpoint(adapted), damaged, metadata=read_header(adapted))
    with pytest.raises(CheckpointError, match=r"original running_mean of .* is missing"):
        read_original(damaged)


def test_a_bundle_names_its_checkpoint(small_bundle_dir: Path, small_checkpoint: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_original(small_bundle_dir)
    for word in ("is a bundle", small_checkpoint.name, file_entry(small_checkpoint).sha256):
        assert word in str(caught.value)
