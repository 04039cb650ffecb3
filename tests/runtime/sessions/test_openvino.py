from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import MissingExtraError, SessionError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import CamBatch, Session
from sshr_deploy.runtime.engines import opening
from sshr_deploy.runtime.engines.candidate import candidates_for
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kinds import OPENVINO
from sshr_deploy.runtime.engines.machine_key import machine_key
from sshr_deploy.runtime.engines.trial import Trial
from sshr_deploy.runtime.machine import threads
from sshr_deploy.runtime.machine.processor import processor_flags
from sshr_deploy.runtime.machine.threads import Threads
from sshr_deploy.runtime.sessions import openvino as module
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from sshr_deploy.runtime.sessions.openvino import (
    DEVICE_VARIABLE,
    OpenVinoSession,
    device_text,
    import_openvino,
)
from sshr_deploy.runtime.settings import OpenOptions
from tests.runtime.session_contract import SessionContract, Subject, noise, relative_rms
from tests.runtime.sessions.small_graph import Graph, writer

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return writer(tmp_path_factory.mktemp("graphs"))


@pytest.fixture
def bundle_dir(small_bundle_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle_dir, tmp_path / "bundle"))


class TestOpenVino(SessionContract):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, small_bundle_dir: Path, small_checkpoint: Path) -> Subject:
        from sshr_deploy.model import predict
        from sshr_deploy.model.checkpoint import load_checkpoint

        model = load_checkpoint(small_checkpoint)
        return Subject(
            open=lambda: OpenVinoSession(small_bundle_dir / "model.onnx", 3),
            expected=lambda patches: CamBatch(*predict(model, patches)),
            engine="openvino",
        )


def test_eight_bits_are_computed_as_eight_bits(graph: Graph, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Patches(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = [noise(4)]

        def get_next(self) -> Mapping[str, Any] | None:
            return {"patches": self.left.pop()} if self.left else None

    path = tmp_path / "int8.onnx"
    quantization.quantize_static(
        graph("FLOAT"), path, Patches(), op_types_to_quantize=["Conv"], per_channel=True
    )
    with (
        OpenVinoSession(path, 3, precision="int8") as session,
        OnnxRuntimeSession(path, 3, precision="int8") as other,
    ):
        found, wanted = session.infer(noise(3)), other.infer(noise(3))
        nodes = session._request.get_compiled_model().get_runtime_model().get_ops()
        types = {
            str(node.rt_info["runtimePrecision"].astype(str))
            for node in nodes
            if node.rt_info["layerType"].astype(str) == "Convolution"
        }
        assert types and types <= {"u8", "i8"}, types
    assert relative_rms(found.cam_28_1, wanted.cam_28_1) < 0.01


def test_what_was_compiled_is_read_again(graph: Graph, tmp_path: Path) -> None:
    kept = tmp_path / "engine.plan"
    with OpenVinoSession(graph("FLOAT"), 3, compiled=kept) as session:
        first = session.infer(noise(2))
    size = kept.stat().st_size
    with OpenVinoSession(tmp_path / "no graph is read", 3, compiled=kept) as session:
        again = session.infer(noise(2))
    assert np.array_equal(first.cam_deep, again.cam_deep)
    assert kept.stat().st_size == size
    with pytest.raises(SessionError, match="SSHR graph of 5 classes"):
        OpenVinoSession(graph("FLOAT"), 5, compiled=kept)
    kept.write_bytes(kept.read_bytes()[: size // 2])
    with pytest.raises(SessionError, match=r"engine\.plan cannot be used; remove .*: ") as caught:
        OpenVinoSession(graph("FLOAT"), 3, compiled=kept)
    assert "\n" not in str(caught.value)


def test_a_bundle_is_opened_from_the_store_and_a_changed_file_is_made_again(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "time_pair", lambda *_: Trial(plain_ms=10.0, with_ms=8.0))
    told: list[str] = []

    def opened(engine: str = "openvino") -> Session:
        session = open_session(
            load_bundle(bundle_dir), engine, OpenOptions(Precision.FP32), on_step=told.append
        )
        session.close()
        return session

    info = opened().info
    assert (info.engine, info.mask_agreement, info.unqualified) == ("openvino", 1.0, None)
    (plan,) = (bundle_dir / "engines").glob("openvino-fp32-*/engine.plan")
    told.clear()
    assert (opened("auto").info.engine, told) == ("openvino", [])
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    assert opened("auto").info.engine == "onnx-cpu"
    opened()
    assert "engine.plan was changed" in told[0]
    assert opened("auto").info.engine == "openvino"


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bf16_is_for_processors_that_have_it(
    flag: str, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this one has not, OpenVINO takes FP32 for it; the hint shows what was asked."""
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(module, "processor_flags", lambda: processor_flags(cpuinfo))
    cpuinfo.write_text("flags\t\t: fpu avx2 avx512f\n")
    with pytest.raises(SessionError, match=r"neither AVX-512 BF16 nor AMX; choose another `prec"):
        OpenVinoSession(graph("FLOAT"), 3, precision="bf16")
    cpuinfo.write_text(f"flags\t\t: fpu avx2 {flag}\n")
    asked: list[Mapping[str, str]] = []
    real = module._compiled

    def compiled(core: Any, path: Path, device: str, options: Any, kept: Path | None) -> Any:
        asked.append(options)
        return real(core, path, device, options, kept)

    monkeypatch.setattr(module, "_compiled", compiled)
    with OpenVinoSession(graph("FLOAT"), 3, precision="bf16") as session:
        assert session.info.precision == "bf16"
    assert asked[0]["INFERENCE_PRECISION_HINT"] == "bf16"


def test_bf16_is_reached_by_its_name_and_refused_with_the_reason(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "processor_flags", lambda: {"avx2"})
    with pytest.raises(SessionError, match="neither AVX-512 BF16 nor AMX"):
        open_session(load_bundle(bundle_dir), "openvino", OpenOptions(Precision.BF16))
    with pytest.raises(SessionError, match="openvino computes in fp32, bf16, int8, not in fp16"):
        OpenVinoSession(bundle_dir / "model.onnx", 3, precision="fp16")


def test_threads_are_those_in_use(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_in_use", Threads(1, "--threads"))
    with OpenVinoSession(graph("FLOAT"), 3) as session:
        assert session.info.threads == 1
        network = session._request.get_compiled_model()
        assert network.get_property("INFERENCE_NUM_THREADS") == 1


def test_another_device_is_asked_for_by_its_name_and_another_key(
    graph: Graph, small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(small_bundle_dir)
    (candidate,) = candidates_for(bundle, OPENVINO, Precision.FP32)
    key = machine_key(bundle, candidate, 8)
    assert (key.sm, key.driver) == (None, None) and key.library.startswith("openvino 20")
    assert key.options.startswith("timed against onnxruntime ")
    monkeypatch.setenv(DEVICE_VARIABLE, "AUTO")  # OpenVINO's choice among what there is
    assert device_text() == "AUTO, AUTO"
    assert machine_key(bundle, candidate, 8).differences(key) == [
        f"device AUTO, AUTO -> {key.device}"
    ]
    with OpenVinoSession(graph("FLOAT"), 3) as session:
        assert (session.info.device, session.info.threads) == ("AUTO, AUTO", None)
    monkeypatch.setenv(DEVICE_VARIABLE, "NOWHERE")
    with pytest.raises(
        SessionError, match=rf"on NOWHERE \(by {DEVICE_VARIABLE}; unset, it is CPU\): "
    ) as caught:
        OpenVinoSession(graph("FLOAT"), 3)
    assert "\n" not in str(caught.value)


def test_without_openvino_the_extra_is_named(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sshr-deploy\[openvino\]'"):
        OpenVinoSession(graph("FLOAT"), 3)


def test_a_broken_graph_is_one_line(tmp_path: Path) -> None:
    for name in ("none.onnx", "broken.onnx"):
        (tmp_path / "broken.onnx").write_bytes(b"\x08\x07")
        with pytest.raises(SessionError, match=r"^openvino 20.* on CPU: ") as caught:
            OpenVinoSession(tmp_path / name, 3)
        assert "\n" not in str(caught.value)


def test_nothing_is_written_or_sent_about_the_user(graph: Graph, tmp_path: Path) -> None:
    """Its telemetry begins with the import; a stub stands in for it."""
    code = (
        "import sys; from pathlib import Path\n"
        "from sshr_deploy.runtime.sessions.openvino import OpenVinoSession\n"
        "OpenVinoSession(Path(sys.argv[1]), 3).close()\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
        "import openvino.tools.ovc.telemetry_utils as used\n"
        "assert used.tm.__name__ == 'openvino.tools.ovc.telemetry_stub', used.tm\n"
    )
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA")}
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    subprocess.run(
        [sys.executable, "-c", code, str(graph("FLOAT"))], env={**environ, **home}, check=True
    )
    assert list(tmp_path.rglob("*")) == []


def test_an_interrupt_after_two_sessions_is_an_interrupt(graph: Graph) -> None:
    """Two cores, ended in the order of their making, leave a freed signal stack (with AMX)."""
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from sshr_deploy.runtime.sessions.openvino import OpenVinoSession, device_text\n"
        "first, second = (OpenVinoSession(Path(sys.argv[1]), 3) for _ in range(2))\n"
        "first.close(); del first; device_text()\n"
        "second.close(); del second\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    command = [sys.executable, "-c", code, str(graph("FLOAT"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_the_import_leaves_other_packages_their_telemetry() -> None:
    import_openvino()
    assert sys.modules.get("openvino_telemetry", "not blocked") is not None


@pytest.mark.parametrize("content", [None, "", "raise RuntimeError('no libtbb')"])
def test_a_package_of_that_name_that_is_none_stops_nobody(
    small_bundle_dir: Path, tmp_path: Path, content: str | None
) -> None:
    """A folder that an uninstallation left, or that lies where a command is run; a real package
    comes before a mere folder."""
    (tmp_path / "openvino").mkdir()
    if content is not None:
        (tmp_path / "openvino" / "__init__.py").write_text(content)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from pathlib import Path
from sshr_deploy.bundle import load_bundle
from sshr_deploy.runtime.engines.choosing import open_session
with open_session(load_bundle(Path({str(small_bundle_dir)!r}))) as session:
    print(session.info.engine)
    print(*(f"{{name}}: {{why}}" for name, why in session.info.rejected.items()), sep="\\n")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken, *rejected = done.stdout.splitlines()
    whys = [line.partition(": ")[2] for line in rejected if line.startswith("openvino")]
    cannot_start = [why.startswith("openvino cannot start: ") for why in whys]
    assert taken == "onnx-cpu" and whys, done.stdout
    assert not any(cannot_start) if content is None else all(cannot_start), done.stdout


def test_threads_take_turns(graph: Graph) -> None:
    with OpenVinoSession(graph("FLOAT"), 3) as session, ThreadPoolExecutor(3) as pool:
        patches = [noise(1 + seed % 2, seed=seed) for seed in range(12)]
        alone = [session.infer(batch).prob for batch in patches]
        together = pool.map(lambda batch: session.infer(batch).prob, patches)
        for ours, wanted in zip(together, alone, strict=True):
            assert np.array_equal(ours, wanted)
