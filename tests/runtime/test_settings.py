from __future__ import annotations

import pytest

from sshr_deploy.runtime.settings import EngineChoice, OpenOptions, default_batch


@pytest.mark.parametrize("engine", [*EngineChoice, "pytorch-cuda"])
def test_a_gpu_takes_more_patches_in_a_call(engine: str) -> None:
    assert default_batch(engine) == (8 if engine == "onnx-cpu" else 32)
    assert OpenOptions().batch_for(engine) == default_batch(engine)
    assert OpenOptions(batch=5).batch_for(engine) == 5


def test_pytorch_on_a_processor_is_a_processor() -> None:
    assert default_batch("pytorch-cpu") == 8
