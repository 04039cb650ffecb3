from __future__ import annotations

import pytest

from sshr_deploy.runtime.machine import processor


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (None, "X"),
        ({"sse4_2"}, "X"),
        ({"avx2"}, "X, AVX2"),
        ({"avx2", "avx_vnni"}, "X, AVX2, VNNI"),
        ({"avx2", "avx512f", "avx512_vnni", "amx_int8"}, "X, AVX2, AVX-512, VNNI, AMX"),
    ],
)
def test_its_text_names_what_8_bits_are_computed_by(
    monkeypatch: pytest.MonkeyPatch, flags: set[str] | None, text: str
) -> None:
    monkeypatch.setattr(processor, "processor_name", lambda: "X")
    monkeypatch.setattr(processor, "processor_flags", lambda: flags)
    assert processor.processor_text() == text
