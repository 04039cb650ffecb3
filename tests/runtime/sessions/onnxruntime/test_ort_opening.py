from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.engines.kinds import KINDS
from sshr_deploy.runtime.sessions.onnxruntime import opening as onnxruntime_opening
from sshr_deploy.runtime.sessions.onnxruntime.opening import provider_options
from sshr_deploy.runtime.sessions.onnxruntime.providers import (
    CPU_PROVIDER,
    Provider,
)
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from tests.runtime.sessions.small_graph import Graph, writer

PROVIDERS = {kind.name: kind.provider for kind in KINDS if kind.provider is not None}
FOREIGN = "AzureExecutionProvider"
"""Is in the CPU package and starts, but has no kernel for any node of an SSHR graph."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return writer(tmp_path_factory.mktemp("graphs"))


def test_options_of_the_providers(tmp_path: Path) -> None:
    assert provider_options(PROVIDERS["onnx-cpu"], 8, None) == {}
    assert provider_options(PROVIDERS["onnx-cuda"], 8, tmp_path) == {"use_tf32": "0"}
    shapes = {
        "trt_profile_min_shapes": "patches:1x224x224x3",
        "trt_profile_opt_shapes": "patches:16x224x224x3",
        "trt_profile_max_shapes": "patches:16x224x224x3",
    }
    assert provider_options(PROVIDERS["onnx-tensorrt"], 16, None) == shapes
    folder = tmp_path / "{odd}"
    assert provider_options(PROVIDERS["onnx-tensorrt"], 16, folder) == {
        **shapes,
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    assert provider_options(PROVIDERS["onnx-rtx"], 4, folder) == {
        "nv_profile_min_shapes": "patches:1x224x224x3",
        "nv_profile_opt_shapes": "patches:4x224x224x3",
        "nv_profile_max_shapes": "patches:4x224x224x3",
    }  # no cache: it would be written again whenever a session closes
    for engine in PROVIDERS:
        options = provider_options(PROVIDERS[engine], 8, tmp_path)
        assert not any(word in name for name in options for word in ("fp16", "bf16", "int8"))


@pytest.mark.parametrize(
    ("engine", "extra"), [("onnx-cuda", "gpu"), ("onnx-tensorrt", "gpu"), ("onnx-rtx", "rtx")]
)
def test_a_provider_that_is_not_there_names_its_extra(
    graph: Graph, engine: str, extra: str
) -> None:
    provider = PROVIDERS[engine]
    if provider.name in onnxruntime.get_available_providers() or (
        provider.plugin is not None and importlib.util.find_spec(provider.plugin) is not None
    ):
        pytest.skip("it is there")
    with pytest.raises(SessionError, match=rf"pip install 'sshr-deploy\[{extra}\]'"):
        OnnxRuntimeSession(graph("FLOAT"), 3, engine=engine, provider=provider)


def test_nodes_that_would_run_on_the_cpu_are_an_error(
    graph: Graph, capfd: pytest.CaptureFixture[str]
) -> None:
    provider = Provider(FOREIGN, "gpu")
    with pytest.raises(SessionError, match=rf"{FOREIGN} cannot run all of .*\d+ Conv") as caught:
        OnnxRuntimeSession(graph("FLOAT"), 3, provider=provider, precision="fp16")
    assert "\n" not in str(caught.value)
    assert "EP Error" not in capfd.readouterr().out, "ONNX Runtime tried again on the CPU"


@pytest.mark.parametrize("strict", [True, False])
def test_a_provider_that_does_not_start_is_an_error(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """As the GPU package behaves where there is no GPU: it opens the graph on the CPU."""
    real = onnxruntime.InferenceSession

    def fall_back(path: str, sess_options: Any, providers: list[Any], **keywords: Any) -> Any:
        assert providers == [("CUDAExecutionProvider", {"use_tf32": "0"})], "TF32 is not FP32"
        assert keywords == {"enable_fallback": False}
        switch = "session.disable_cpu_ep_fallback"
        if strict:  # the switch finds it first
            return real(path, sess_options, providers=None, **keywords)
        plain = onnxruntime.SessionOptions()
        assert sess_options.get_session_config_entry(switch) == "1"
        return real(path, plain, providers=[CPU_PROVIDER], **keywords)

    def preload() -> None:
        print("Failed to load libcublas.so.13: no such file")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    with pytest.raises(
        SessionError,
        match=r"could not start here: no such file; pip install .*\[gpu\]'; .* fell back to CPU",
    ):
        OnnxRuntimeSession(graph("FLOAT"), 3, provider=PROVIDERS["onnx-cuda"])


def test_a_plug_in_that_cannot_be_loaded_is_an_error(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the TensorRT-RTX provider where there is no driver: its library needs libcuda."""
    module: Any = types.ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
    module.get_library_path = lambda: str(tmp_path / "libprovider.so")
    (tmp_path / "libprovider.so").write_bytes(b"not a library")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(SessionError, match="NvTensorRTRTXExecutionProvider cannot start: ") as e:
        OnnxRuntimeSession(graph("FLOAT"), 3, provider=PROVIDERS["onnx-rtx"])
    assert "libprovider.so" in str(e.value)


def test_a_plug_in_without_a_gpu_is_an_error(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_opening, "_register", lambda *_: None)
    with pytest.raises(SessionError, match="finds no GPU that it can use"):
        OnnxRuntimeSession(graph("FLOAT"), 3, provider=PROVIDERS["onnx-rtx"])
