from __future__ import annotations

import os
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshr_deploy.runtime.report import figures
from sshr_deploy.runtime.slides import Mpp


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0000234567, "0.0000235"),
        (0.0316, "0.0316"),
        (0.6327, "0.633"),
        (9.999, "10.0"),
        (99.96, "100"),
        (12.3456, "12.3"),
        (1234.5, "1,234"),
        (1234567.8, "1,234,568"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert figures.digits(value) == text


@given(st.floats(1e-9, 1e9))
def test_numbers_are_right_to_three_digits(value: float) -> None:
    text = figures.digits(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("part", "text"),
    [(None, "–"), (0.0, "0.0 %"), (0.0004, "< 0.1 %"), (0.52002, "52.0 %"), (1.0, "100.0 %")],
)
def test_shares(part: float | None, text: str) -> None:
    assert figures.share(part) == text


@pytest.mark.parametrize(
    ("part", "text"),
    [(None, "–"), (1.0, "100 %"), (0.9999999, "99.999 %"), (0.99987, "99.987 %"), (0.29, "29 %")],
)
def test_an_agreement_is_never_rounded_up(part: float | None, text: str) -> None:
    assert figures.agreement(part) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.004, "0.00 s"),
        (0.999, "1.0 s"),
        (59.96, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (7265, "2 h 01 min"),
    ],
)
def test_durations(value: float | None, text: str) -> None:
    assert figures.seconds(value) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (32374, "32.4 kB"), (10**9, "1.00 GB")]
)
def test_sizes(count: int, text: str) -> None:
    assert figures.size(count) == text


def test_pixel_sizes_and_moments() -> None:
    assert figures.pixel_size(Mpp(0.499, 0.499, "file")) == "0.499 µm"
    assert figures.pixel_size(Mpp(0.25, 0.2503, "file")) == "0.25 × 0.2503 µm"
    assert figures.moment("2026-11-28T05:39:41+00:00") == "2026-11-28 05:39 UTC"
    assert figures.moment("long ago") == "long ago"


def test_names_are_shown_as_text_and_linked_by_their_bytes() -> None:
    name = os.fsdecode(b"\xff\n'\"<b>.svs")
    assert figures.shown(name) == "\\udcff\\n'\"<b>.svs"
    link = figures.link(f"javascript:x/{name}/report.html")
    assert ":" not in link
    assert os.fsdecode(urllib.parse.unquote_to_bytes(link)) == f"javascript:x/{name}/report.html"
