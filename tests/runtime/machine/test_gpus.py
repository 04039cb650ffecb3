"""`find_gpus` against programs on the PATH that answer, fail, hang and babble as nvidia-smi can."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.machine.gpus import Gpu, find_gpus, first_gpu, first_visible, why_no_gpu
from tests.runtime.fake_nvidia_smi import put_nvidia_smi

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in program is a POSIX script")
ADA = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
HOPPER = "GPU-8a01c2b3-0000-4106-c12f-20bd9faed9f6"
GPUS = (Gpu(0, "Ada", 89, "580.1", 5, ADA), Gpu(1, "Hopper", 90, "580.1", 5, HOPPER))


@pytest.fixture
def smi_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_gpus_are_read(smi_folder: Path) -> None:
    put_nvidia_smi(
        smi_folder,
        f"1, {ADA}, NVIDIA RTX 2000 Ada Generation, 8.9, 580.95.05, 16380\n"
        f"0, {HOPPER}, NVIDIA RTX PRO 6000 Blackwell Max-Q, 12.0, 580.95.05, 97887\n",
    )
    assert find_gpus() == (
        Gpu(0, "NVIDIA RTX PRO 6000 Blackwell Max-Q", 120, "580.95.05", 97887, HOPPER),
        Gpu(1, "NVIDIA RTX 2000 Ada Generation", 89, "580.95.05", 16380, ADA),
    )
    assert why_no_gpu() == ""


def test_the_query_is_what_nvidia_smi_knows(smi_folder: Path) -> None:
    """The stand-in answers only to the options that the real program was seen to take."""
    script = smi_folder / "nvidia-smi"
    script.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "wanted = ['--query-gpu=index,uuid,name,compute_cap,driver_version,memory.total',\n"
        "          '--format=csv,noheader,nounits']\n"
        "print('0, [N/A], A, 7.5, 535.1, 1' if sys.argv[1:] == wanted else sys.argv)\n"
    )
    script.chmod(0o755)
    assert find_gpus() == (Gpu(0, "A", 75, "535.1", 1),)


@pytest.mark.parametrize(
    ("line", "gpu"),
    [
        (
            "0, GPU-1, NVIDIA A, B, and C, 8.6, 535.1, 8192",
            Gpu(0, "NVIDIA A, B, and C", 86, "535.1", 8192, "GPU-1"),
        ),
        (
            "0, GPU-1, NVIDIA GB10, 12.1, 580.1, [N/A]",
            Gpu(0, "NVIDIA GB10", 121, "580.1", 0, "GPU-1"),
        ),
        ("0, GPU-1, X, 9.0, [N/A], 81559", Gpu(0, "X", 90, "unknown", 81559, "GPU-1")),
        ("0, [Unknown Error], X, 9.0, 1.0, 5", Gpu(0, "X", 90, "1.0", 5, "")),
        ("  3 , GPU-1,  X ,10.0,580.1,5  ", Gpu(3, "X", 100, "580.1", 5, "GPU-1")),
        (
            "0, GPU-1, \x1b[31mred\x1b[0m, 9.0, 1.0, 5",
            Gpu(0, r"\x1b[31mred\x1b[0m", 90, "1.0", 5, "GPU-1"),
        ),
    ],
)
def test_odd_fields(smi_folder: Path, line: str, gpu: Gpu) -> None:
    put_nvidia_smi(smi_folder, line + "\n")
    assert find_gpus() == (gpu,)


def test_lines_that_are_no_gpu_are_passed_over(smi_folder: Path) -> None:
    put_nvidia_smi(
        smi_folder,
        "Warning: infoROM is corrupted at gpu 0000:00:1E.0\n"
        "0, GPU-1, NVIDIA H100 80GB HBM3, 9.0, 570.1, 81559\n"
        "  MIG 1g.10gb     Device  0: (UUID: MIG-c1, 9.0, 570.1, 3)\n"
        "1, GPU-2, old card, [N/A], 570.1, 2048\n"
        "one, GPU-3, NVIDIA, 9.0, 570.1, 1\n"
        "2, short, 9.0\n"
        "\n",
    )
    assert [gpu.index for gpu in find_gpus()] == [0]


def test_one_lost_gpu_does_not_hide_the_others(smi_folder: Path) -> None:
    put_nvidia_smi(
        smi_folder, "0, GPU-1, A, 8.9, 580.1, 1\nUnable to determine the device handle\n", 255
    )
    assert [gpu.name for gpu in find_gpus()] == ["A"]


def test_no_program(smi_folder: Path) -> None:
    assert find_gpus() == ()
    assert "nvidia-smi is not on the PATH" in why_no_gpu()
    assert "install NVIDIA's driver" in why_no_gpu()


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make\n",
            9,
            ["failed", "couldn't communicate with the NVIDIA driver. Make;", "update"],
        ),
        ("\n", 3, ["failed with exit code 3", "driver"]),
        ("No devices were found\n", 0, ["says: No devices were found;", "seated"]),
        ("", 0, ["lists none", "seated"]),
        ("\x00\xff\u2603 no csv at all\n" * 1000, 0, ["says: \\x00", "seated"]),
        (
            'Field "compute_cap" is not a valid field to query.\n',
            2,
            ["not a valid field", "update"],
        ),
    ],
)
def test_reasons(smi_folder: Path, output: str, code: int, words: list[str]) -> None:
    put_nvidia_smi(smi_folder, output, code)
    assert find_gpus() == ()
    for word in words:
        assert word in why_no_gpu()
    assert "\n" not in why_no_gpu()
    assert len(why_no_gpu()) < 400


def test_bytes_that_are_no_text(smi_folder: Path) -> None:
    script = smi_folder / "nvidia-smi"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdout.buffer.write(b'\\xff\\xfe, \\x80')\n"
    )
    script.chmod(0o755)
    assert find_gpus() == ()
    assert "\ufffd" in why_no_gpu()


def test_reason_on_stderr(smi_folder: Path) -> None:
    script = smi_folder / "nvidia-smi"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such library')\n")
    script.chmod(0o755)
    assert "no such library" in why_no_gpu()


def test_a_program_that_cannot_start(smi_folder: Path) -> None:
    script = smi_folder / "nvidia-smi"
    script.write_text("#!/nowhere/at/all\n")
    script.chmod(0o755)
    assert find_gpus() == ()
    assert "cannot be started: No such file or directory; install" in why_no_gpu()


def test_a_program_that_hangs(smi_folder: Path) -> None:
    script = smi_folder / "nvidia-smi"
    script.write_text(
        f"#!{sys.executable}\nimport os, pathlib, sys, time\n"
        f"pathlib.Path({str(smi_folder / 'pid')!r}).write_text(str(os.getpid()))\n"
        "print('0, GPU-1, A, 8.9, 580.1, 1', flush=True)\ntime.sleep(600)\n"
    )
    script.chmod(0o755)
    assert find_gpus(timeout_s=3.0) == ()
    assert "did not answer in 3 s" in why_no_gpu(timeout_s=3.0)
    pid = int((smi_folder / "pid").read_text())
    with pytest.raises(ProcessLookupError):  # it was killed, and waited for
        os.kill(pid, 0)


def test_it_is_asked_once(smi_folder: Path) -> None:
    script = smi_folder / "nvidia-smi"
    script.write_text(
        f"#!{sys.executable}\n"
        f"open({str(smi_folder / 'calls')!r}, 'a').write('x')\n"
        "print('0, GPU-1, A, 8.9, 580.1, 1')\n"
    )
    script.chmod(0o755)
    for _ in range(3):
        assert len(find_gpus()) == 1
        assert why_no_gpu() == ""
    assert (smi_folder / "calls").read_text() == "x"


@pytest.mark.parametrize(
    ("visible", "index"),
    [
        (None, 0),
        ("0", 0),
        ("1", 1),
        (" 1 , 0", 1),
        (f"{HOPPER},{ADA}", 1),
        (ADA, 0),
        ("GPU-8a", 1),
        ("GPU-89,-1", 0),
    ],
)
def test_the_first_visible_gpu(visible: str | None, index: int) -> None:
    assert first_visible(GPUS, visible) == GPUS[index]


@pytest.mark.parametrize(
    ("visible", "said"),
    [
        ("", "'', which hides every GPU; unset it, or name the GPU, such as 0"),
        ("-1", "'-1', which hides every GPU"),
        ("NoDevFiles", "hides every GPU"),
        ("MIG-1f2e/3", "'MIG-1f2e/3', a slice of a GPU; engines are proven for whole GPUs"),
        (f"MIG-{ADA}/1/0", "a slice of a GPU"),
        ("GPU-8", f"names more than one GPU here; give one of 0 ({ADA}), 1 ({HOPPER})"),
        ("GPU-8932f938", "names no GPU here"),
        ("8932f937", "names no GPU here"),
        ("2,0", "'2,0', whose first names no GPU here"),
        ("all", "names no GPU here"),
    ],
)
def test_what_leaves_no_gpu_says_so(visible: str, said: str) -> None:
    with pytest.raises(SessionError) as caught:
        first_visible(GPUS, visible)
    assert said in str(caught.value)


def test_a_gpu_without_a_uuid_is_not_taken_for_another() -> None:
    with pytest.raises(SessionError, match=r"names no GPU here; give one of 0 \(no UUID told\)"):
        first_visible((Gpu(0, "A", 89, "580.1", 1),), ADA)


def test_the_first_gpu_is_that_of_the_environment(
    smi_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "to be restored")
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(SessionError, match="nvidia-smi is not on the PATH"):
        first_gpu()
    put_nvidia_smi(smi_folder, f"0, {ADA}, A, 8.9, 5.1, 1\n1, {HOPPER}, B, 9.0, 5.1, 1\n")
    assert first_gpu().name == "A"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8a01")
    assert first_gpu().name == "B"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    first_gpu()
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
