"""One contract for every session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import MissingExtraError, SessionError, UsageError
from sshr_deploy.runtime.sessions import ENGINES, OUTPUT_NAMES, Session, open_session
from sshr_deploy.runtime.sessions.onnxruntime import PROVIDERS, OnnxRuntimeSession
from sshr_deploy.runtime.sessions.session import CamBatch, checked_cams


@pytest.fixture(scope="module")
def session(small_bundle_dir: Path) -> Iterator[Session]:
    with open_session(load_bundle(small_bundle_dir), "onnx-cpu") as session:
        yield session


def _noise(batch: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(batch).integers(0, 256, (batch, 224, 224, 3), np.uint8)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_outputs_have_their_shapes_and_ranges(session: Session, batch: int) -> None:
    cams = session.infer(_noise(batch))
    assert len(cams) == batch
    for name in OUTPUT_NAMES:
        output = getattr(cams, name)
        assert output.dtype == np.float32
        assert output.shape == ((batch, 3) if name == "prob" else (batch, 3, 28, 28))
        assert output.min() >= 0
    assert cams.prob.max() <= 1


def test_a_patch_gives_the_same_alone_and_in_a_batch(session: Session) -> None:
    patches = _noise(3)
    together, alone = session.infer(patches), session.infer(patches[1:2])
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(
            getattr(together, name)[1], getattr(alone, name)[0], rtol=1e-4, atol=1e-5
        )


def test_strided_patches_are_taken(session: Session) -> None:
    patches = _noise(2)
    strided = np.repeat(patches, 2, axis=0)[::2]
    assert np.array_equal(session.infer(strided).prob, session.infer(patches).prob)


@pytest.mark.parametrize(
    "patches",
    [
        np.zeros((1, 224, 224, 3), np.float32),
        np.zeros((1, 3, 224, 224), np.uint8),
        np.zeros((224, 224, 3), np.uint8),
        np.zeros((1, 225, 224, 3), np.uint8),
        np.zeros((0, 224, 224, 3), np.uint8),
    ],
)
def test_wrong_patches_are_refused(session: Session, patches: Any) -> None:
    with pytest.raises(SessionError, match="patches must"):
        session.infer(patches)


def test_info_names_engine_and_library(session: Session) -> None:
    assert session.info.engine == "onnx-cpu"
    assert session.info.precision == "fp32"
    assert session.info.library.startswith("onnxruntime ")


def test_a_closed_session_says_so(small_bundle_dir: Path) -> None:
    session = open_session(load_bundle(small_bundle_dir), "onnx-cpu")
    session.close()
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.infer(_noise(1))


def test_nan_from_an_engine_is_an_error(session: Session) -> None:
    good = session.infer(_noise(1))
    bad = CamBatch(good.cam_28_1, good.cam_28_2 * np.float32("nan"), good.cam_deep, good.prob)
    with pytest.raises(SessionError, match="NaN or infinite values in cam_28_2"):
        checked_cams(bad, 1)
    negative = CamBatch(good.cam_28_1 - 1000, good.cam_28_2, good.cam_deep, good.prob)
    with pytest.raises(SessionError, match="negative values in cam_28_1"):
        checked_cams(negative, 1)
    with pytest.raises(SessionError, match="1 cam_28_1 for 2 patches"):
        checked_cams(good, 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_works_or_says_why_not(small_bundle_dir: Path, engine: str) -> None:
    bundle = load_bundle(small_bundle_dir)
    import onnxruntime

    if PROVIDERS[engine][0] in onnxruntime.get_available_providers():
        with open_session(bundle, engine) as session:
            assert session.info.engine == engine
            assert session.infer(_noise(2)).prob.shape == (2, 3)
    else:
        with pytest.raises(SessionError, match=r"pip install"):
            open_session(bundle, engine)


def test_auto_takes_what_works_and_says_why_not_the_rest(small_bundle_dir: Path) -> None:
    with open_session(load_bundle(small_bundle_dir)) as session:
        better = ENGINES[: ENGINES.index(session.info.engine)]
        assert set(session.info.rejected) == set(better)
        assert all(session.info.rejected.values())


def test_unknown_engines_are_refused(small_bundle_dir: Path) -> None:
    with pytest.raises(UsageError, match="choose auto, onnx-cuda, onnx-cpu"):
        open_session(load_bundle(small_bundle_dir), "tensorflow")


def test_a_provider_that_falls_back_is_an_error(
    small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    real = onnxruntime.InferenceSession

    def fall_back(path: str, options: Any, providers: list[Any]) -> Any:
        assert providers == [("CUDAExecutionProvider", {"use_tf32": "0"})], "TF32 is not FP32"
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    with pytest.raises(SessionError, match="fell back to CPUExecutionProvider"):
        open_session(load_bundle(small_bundle_dir), "onnx-cuda")


def test_a_graph_of_another_class_count_is_refused(small_bundle_dir: Path) -> None:
    with pytest.raises(SessionError, match="SSHR graph of 5 classes"):
        OnnxRuntimeSession(small_bundle_dir / "model.onnx", 5)


def test_a_broken_graph_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(SessionError, match="onnxruntime cannot open") as caught:
        OnnxRuntimeSession(tmp_path / "model.onnx", 3)
    assert "\n" not in str(caught.value)


def test_weights_outside_the_folder_are_never_read(small_bundle_dir: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(small_bundle_dir / "model.onnx", load_external_data=False)
    (tmp_path / "secret").write_bytes((small_bundle_dir / "model.onnx.data").read_bytes())
    folder = tmp_path / "bundle"
    folder.mkdir()
    for location in ("../secret", str(tmp_path / "secret")):
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "model.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(SessionError, match="cannot open"):
            OnnxRuntimeSession(folder / "model.onnx", 3)


def test_without_onnxruntime_the_extra_is_named(
    small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sshr-deploy\[cpu\]'"):
        OnnxRuntimeSession(small_bundle_dir / "model.onnx", 3)


def test_nothing_is_written_or_sent_about_the_user(small_bundle_dir: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sshr_deploy.bundle import load_bundle\n"
        "from sshr_deploy.runtime.sessions import open_session\n"
        "open_session(load_bundle(Path(sys.argv[1])), 'onnx-cpu').close()"
    )
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA")}
    subprocess.run(
        [sys.executable, "-c", code, str(small_bundle_dir)], env={**os.environ, **home}, check=True
    )
    assert list(tmp_path.rglob("*")) == []
