from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes

from sshr_deploy.errors import ProfileError
from sshr_deploy.profiles import Profile, load_profile, shipped_profiles

OWN = """
name = "own"
title = "My classes"
mpp_um = 0.5
gate_threshold = 0.3
[[classes]]
name = "a"
color = "#ff0000"
[[classes]]
name = "b"
color = "#00ff00"
"""


def test_shipped_profiles_hold_the_published_facts() -> None:
    assert shipped_profiles() == ["bcss", "luad", "wsss4luad"]
    luad, bcss, wsss = (load_profile(n) for n in ("luad", "bcss", "wsss4luad"))
    assert (luad.num_classes, luad.mpp_um, luad.gate_threshold) == (4, 1.0, 0.2)
    assert (bcss.num_classes, bcss.mpp_um, bcss.gate_threshold) == (4, 0.25, 0.8)
    assert (wsss.num_classes, wsss.mpp_um) == (3, 1.0)
    assert luad.cam_weights.as_tuple() == (0.6, 0.2, 0.2)
    assert [c.name for c in luad.classes][:2] == ["tumour epithelium", "necrosis"]


def test_codes_of_shipped_profiles_are_those_of_dicom() -> None:
    """By the concepts of DICOM's own context groups, as pydicom lists them."""
    tissues = [t for name in shipped_profiles() for t in load_profile(name).classes]
    coded = [tissue.code for tissue in tissues if tissue.code is not None]
    assert len(coded) == 5
    for code in coded:
        listed = getattr(codes.SCT, code.meaning)
        assert (listed.value, listed.scheme_designator) == (code.value, code.scheme)


def test_own_profile_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    profile = load_profile(str(path))
    assert profile.palette == [(255, 0, 0), (0, 255, 0), (255, 255, 255)]


@pytest.mark.parametrize(
    "name", ["x[1 0 1].png", "x[101].png", "x-[1, 0, 1].png", "[9]x[1 0 1].png"]
)
def test_labels_in_the_three_notations(name: str) -> None:
    assert load_profile("wsss4luad").labels_in_name(name) == (1, 0, 1)


@pytest.mark.parametrize(("name", "why"), [("x.png", "no labels"), ("x[10].png", "2 labels")])
def test_names_without_fitting_labels_are_refused(name: str, why: str) -> None:
    with pytest.raises(ProfileError, match=why):
        load_profile("wsss4luad").labels_in_name(name)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('color = "#ff0000"', 'color = "red"', "classes.0.color"),
        ("color", 'code = { value = "1", scheme = "SCT" }\ncolor', "classes.0.code.meaning"),
        ("mpp_um = 0.5", "mpp_um = -1", "mpp_um"),
        ("mpp_um = 0.5", "mpp_um = nan", "mpp_um"),
        ("mpp_um = 0.5", "mpp = 0.5", "mpp"),
        ("gate_threshold = 0.3", "gate_threshold = 3", "gate_threshold"),
        ('name = "b"', 'name = "a"', "class names must differ"),
        ("mpp_um = 0.5", 'mpp_um = 0.5\nlabel_pattern = "("', "label_pattern"),
        ("mpp_um = 0.5", 'mpp_um = 0.5\nlabel_pattern = "x"', "flags"),
        ("title =", "title", "not valid TOML"),
        ("mpp_um = 0.5", "mpp_um = " + "9" * 5000, "not valid TOML"),
        ("mpp_um = 0.5", "mpp_um = " + "[" * 5000, "not valid TOML"),
        (
            "mpp_um = 0.5",
            'mpp_um = 0.5\nlabel_pattern = "a{99999999999999999999}"',
            "label_pattern",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace(old, new))
    with pytest.raises(ProfileError, match=named) as caught:
        load_profile(str(path))
    assert "\n" not in str(caught.value)


def test_unknown_names_and_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="choose bcss, luad, wsss4luad"):
        load_profile("lung")
    for name in ("none.toml", "bad.toml"):
        with pytest.raises(ProfileError, match="cannot be read"):
            load_profile(str(tmp_path / name))


@pytest.mark.skipif(os.name == "nt", reason="FIFOs")
def test_a_profile_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.toml")
    with pytest.raises(ProfileError, match="is not a file"):
        load_profile(str(tmp_path / "p.toml"))


def test_a_label_pattern_may_match_without_labels(profile: Profile) -> None:
    odd = profile.model_copy(update={"label_pattern": r"x(?P<flags>\[z\])?"})
    with pytest.raises(ProfileError, match="0 labels"):
        odd.labels_in_name("x.png")
