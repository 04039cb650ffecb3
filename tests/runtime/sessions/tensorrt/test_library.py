from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sshr_deploy.errors import MissingExtraError, SessionError
from sshr_deploy.runtime.sessions.tensorrt.library import (
    RTX_SMS,
    error_logger,
    import_tensorrt,
    library_text,
    rtx_refusal,
)
from tests.runtime.sessions.fake_tensorrt_session import LIBRARIES


@pytest.mark.parametrize(("engine", "extra"), [("tensorrt", "tensorrt"), ("tensorrt-rtx", "rtx")])
def test_a_library_that_is_not_there_names_its_extra(
    engine: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, LIBRARIES[engine].module, None)
    with pytest.raises(MissingExtraError) as caught:
        import_tensorrt(LIBRARIES[engine])
    assert str(caught.value) == f"{engine} is not installed: pip install 'sshr-deploy[{extra}]'"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('libnvinfer.so.11: cannot open shared object file\\nmore')", "libnv"),
        ("raise OSError('libcudart.so.13: cannot open shared object file')", "libcudart"),
        ("import tensorrt_parts_that_are_nowhere", "No module named 'tensorrt_parts"),
    ],
)
def test_a_library_that_does_not_start_says_why(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SessionError, match=f"^tensorrt cannot start: {reason}") as caught:
        import_tensorrt(LIBRARIES["tensorrt"])
    assert str(caught.value).endswith("pip install --force-reinstall 'sshr-deploy[tensorrt]'")


def test_the_logger_of_the_real_library_keeps_the_last_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("tensorrt_rtx")
    library = LIBRARIES["tensorrt-rtx"]
    trt = import_tensorrt(library)
    assert library_text(library, trt) == f"tensorrt-rtx {trt.__version__}"
    logger = error_logger(trt)
    severity = trt.ILogger.Severity
    for kind, text in (
        (severity.INTERNAL_ERROR, "the first"),
        (severity.ERROR, " the second\nand more"),
        (severity.WARNING, "a warning"),
        (severity.VERBOSE, "a word"),
    ):
        logger.log(kind, text)
    assert list(logger.warnings) == ["a warning"]
    assert logger.last_errors() == "the second"
    assert logger.last_errors() == "no reason given"
    assert trt.Runtime(logger).deserialize_cuda_engine(b"garbage" * 100) is None
    assert logger.last_errors() != "no reason given"
    assert capfd.readouterr() == ("", "")


def test_the_logger_gives_the_latest_errors_once_each() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    logger = error_logger(trt)
    for text in ("first", "second", "third", "third", ""):
        logger.log(trt.ILogger.Severity.ERROR, text)
    assert logger.last_errors(4) == "second; third; no text"
    assert logger.last_errors(4) == "no reason given"


def test_the_list_is_that_of_the_library() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    names = [name for name in dir(trt.ComputeCapability) if name.startswith("SM")]
    listed = {int(name.removeprefix("SM")) for name in names}
    assert listed - {75} == set(RTX_SMS)
    assert all(rtx_refusal("a card", sm) is None for sm in RTX_SMS)
    assert rtx_refusal("H100", 90) == (
        "H100 has SM 9.0, TensorRT-RTX builds for 8.0, 8.6, 8.9, 12.0, 12.1; take another engine"
    )
