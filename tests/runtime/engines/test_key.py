from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from sshr_deploy.runtime.engines.key import EngineKey

KEY = EngineKey(
    engine="tensorrt-rtx",
    precision="fp16",
    inputs="patches",
    model_sha256="a" * 64,
    reference_sha256="b" * 64,
    batches=(1, 8),
    library="tensorrt-rtx 1.7.1.116",
    device="NVIDIA RTX 4000 Ada Generation",
    sm=89,
    driver="580.95.05",
    sshr_deploy="0.1.0",
    rule="weights",
    options="",
    kernels_sha256=None,
)

CHANGES: dict[str, tuple[Any, str]] = {
    "engine": ("tensorrt", "engine tensorrt-rtx -> tensorrt"),
    "precision": ("int8", "precision fp16 -> int8"),
    "inputs": ("fields of 896 px", "inputs patches -> fields of 896 px"),
    "model_sha256": ("c" * 64, "model_sha256 aaaaaaaaaaaa -> cccccccccccc"),
    "reference_sha256": ("c" * 64, "reference_sha256 bbbbbbbbbbbb -> cccccccccccc"),
    "batches": ((1, 16), r"batches 1\+8 -> 1\+16"),
    "library": ("tensorrt-rtx 1.8.0.1", r"library tensorrt-rtx 1\.7\.1\.116 -> .* 1\.8\.0\.1"),
    "device": ("NVIDIA RTX A5000", "device NVIDIA RTX 4000 Ada Generation -> NVIDIA RTX A5000"),
    "sm": (86, "sm 89 -> 86"),
    "driver": ("581.15", r"driver 580\.95\.05 -> 581\.15"),
    "sshr_deploy": ("0.2.0", r"sshr_deploy 0\.1\.0 -> 0\.2\.0"),
    "rule": ("others", "rule weights -> others"),
    "options": ("scratch", "options  -> scratch"),
    "kernels_sha256": ("d" * 64, "kernels_sha256 none -> dddddddddddd"),
}


def test_every_field_is_tried() -> None:
    assert set(CHANGES) == {field.name for field in fields(EngineKey)}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_field_makes_another_key_and_is_told(name: str) -> None:
    value, told = CHANGES[name]
    other = replace(KEY, **{name: value})
    assert other.slot != KEY.slot
    (said,) = KEY.differences(other)

    assert re.fullmatch(told, said)


def test_equal_keys_have_one_slot_and_no_difference() -> None:
    same = replace(KEY)
    assert same.slot == KEY.slot
    assert KEY.differences(same) == []
    assert KEY.slot.startswith("tensorrt-rtx-fp16-")
