"""The table of the engines."""

from __future__ import annotations

import pytest

from sshr_deploy.runtime.engines.kinds import (
    AUTO,
    ENGINES,
    KINDS,
    TARGETS,
    default_batch,
    find_kind,
)


@pytest.mark.parametrize("engine", [AUTO, *ENGINES, "pytorch-cuda"])
def test_a_gpu_takes_more_patches_in_a_call(engine: str) -> None:
    wanted = 8 if engine == "onnx-cpu" else 32
    assert default_batch(engine) == wanted
    if (kind := find_kind(engine)) is not None:
        assert (kind.batch_for(None), kind.batch_for(5)) == (wanted, 5)


def test_pytorch_on_a_processor_is_a_processor() -> None:
    assert default_batch("pytorch-cpu") == 8


def test_names_are_those_of_bundles_and_records_for_ever() -> None:
    """Manifests and keys hold them, and the order decides what "auto" takes."""
    assert (
        *("tensorrt", "tensorrt-rtx", "onnx-tensorrt", "onnx-rtx", "onnx-cuda", "onnx-cpu"),
    ) == ENGINES
    assert list(TARGETS.items()) == [
        ("onnx", ("onnx-cuda", "onnx-cpu")),
        ("tensorrt-rtx", ("tensorrt-rtx", "onnx-rtx")),
        ("tensorrt", ("tensorrt", "onnx-tensorrt")),
    ]


def test_what_keeps_files_says_where() -> None:
    for kind in KINDS:
        cached = kind.provider is not None and bool(kind.provider.cache_options)
        assert kind.keeps_files == (kind.library is not None or cached)
        prefixed = kind.provider is not None and kind.provider.prefix is not None
        assert kind.has_static_batches == (kind.library is not None or prefixed)
