from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sshr_deploy.errors import KernelError
from sshr_deploy.runtime.kernels import manifest as module
from sshr_deploy.runtime.kernels.manifest import (
    MANIFEST_NAME,
    cubins_or_reason,
    default_folder,
    load_manifest,
    write_manifest,
)
from tests.runtime.kernels.kernel_folder import (
    OP,
    SMS,
    VARIANT,
    edit_manifest,
    make_cubin,
    make_kernels,
)


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    return make_kernels(tmp_path / "cubins")


def test_what_is_written_is_read(kernels: Path) -> None:
    manifest = load_manifest(kernels)
    assert manifest.triton == "3.6.0"
    assert manifest.sources == {OP: "1" * 64, "cam_to_mask": "2" * 64}
    assert manifest.cubins[: len(SMS)] == tuple(make_cubin(kernels, sm) for sm in SMS)
    assert len(manifest.cubins) == 2 * len(SMS) - 1
    first = manifest.cubins[0]
    assert first.read() == (kernels / first.file).read_bytes()
    written = (kernels / MANIFEST_NAME).read_bytes()
    write_manifest(kernels, manifest)
    assert (kernels / MANIFEST_NAME).read_bytes() == written


def test_the_file_says_what_the_format_says(kernels: Path) -> None:
    content = json.loads((kernels / MANIFEST_NAME).read_text())
    assert set(content) == {"schema", "triton", "sources", "cubins", "self_sha256"}
    entry = content["cubins"][4]
    assert entry["parameters"][0] == ["feature", "*fp16"]
    assert entry["multiples_of_16"] == ["B", "C"]
    assert entry["constants"] == {"N": 4, "UPCAST": False, "UNIT": "c"}
    assert (entry["sm"], entry["arch"]) == (90, "sm_90a")
    assert "folder" not in entry


@pytest.mark.parametrize(
    ("sm", "taken"),
    [*((sm, sm) for sm in SMS), (87, 86), (88, 86), (82, 80), (79, 75)],
)
def test_a_device_gets_its_own_code_or_the_nearest_below(
    kernels: Path, sm: int, taken: int
) -> None:
    assert load_manifest(kernels).find(OP, VARIANT, sm).sm == taken


@pytest.mark.parametrize("sm", [61, 70, 72, 91, 101, 103, 110, 121])
def test_a_device_without_code_is_told_so(kernels: Path, sm: int) -> None:
    with pytest.raises(KernelError) as caught:
        load_manifest(kernels).find(OP, VARIANT, sm)
    assert str(caught.value) == (
        f"no hfrm_cam fp16-nhwc-n4 kernel for SM {sm // 10}.{sm % 10} "
        "(there are 7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 12.0); "
        "the ONNX graph's form of HFRM serves instead"
    )


def test_an_unknown_variant_is_named(kernels: Path) -> None:
    with pytest.raises(KernelError, match=r"no hfrm_cam fp8 kernel for SM 9\.0 \(nor for any"):
        load_manifest(kernels).find(OP, "fp8", 90)


@pytest.mark.parametrize("place", [0, 7, -1])
def test_one_changed_byte_of_a_kernel_is_refused_each_time(kernels: Path, place: int) -> None:
    cubin = load_manifest(kernels).find(OP, VARIANT, 89)
    whole = cubin.read()
    changed = bytearray(whole)
    changed[place] ^= 1
    (kernels / cubin.file).write_bytes(changed)
    with pytest.raises(KernelError, match=r"n4\.cubin was changed"):
        cubin.read()
    (kernels / cubin.file).write_bytes(whole[:-1])
    with pytest.raises(KernelError, match=r"n4\.cubin was changed"):
        cubin.read()
    (kernels / cubin.file).unlink()
    with pytest.raises(KernelError, match=r"n4\.cubin is missing; install the package again"):
        cubin.read()
    (kernels / cubin.file).mkdir()
    with pytest.raises(KernelError, match=r"n4\.cubin is not a file"):
        cubin.read()


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_out_of_the_folder_are_refused(kernels: Path) -> None:
    cubin = load_manifest(kernels).find(OP, VARIANT, 89)
    path = kernels / cubin.file
    outside = path.rename(kernels.parent / "outside")
    path.symlink_to(outside)
    with pytest.raises(KernelError, match=r"n4\.cubin is a link out of its folder"):
        cubin.read()
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(KernelError, match=r"n4\.cubin cannot be read"):
        cubin.read()


def test_every_byte_of_the_manifest_counts(kernels: Path) -> None:
    file = kernels / MANIFEST_NAME
    whole = file.read_bytes()
    refused = 0
    for place in range(0, len(whole), 61):
        if whole[place : place + 1].isspace():
            continue
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(KernelError, match=MANIFEST_NAME) as caught:
            load_manifest(kernels)
        assert "\n" not in str(caught.value)
        refused += 1
    assert refused > 50


def test_reformatting_is_harmless(kernels: Path) -> None:
    before = load_manifest(kernels)
    edit_manifest(kernels, lambda content: None, rehash=False)
    assert load_manifest(kernels) == before


def test_a_wrong_manifest_is_not_written(kernels: Path) -> None:
    manifest = load_manifest(kernels)
    before = (kernels / MANIFEST_NAME).read_bytes()
    first = manifest.cubins[0]
    for wrong, named in (
        (replace(first, num_warps=0), r"was not written: cubins\[0\]\.num_warps is 0"),
        (replace(first, sha256="0" * 64), "was changed"),
        (replace(first, file="sm_75/none.cubin"), "is missing"),
    ):
        with pytest.raises(KernelError, match=named):
            write_manifest(kernels, replace(manifest, cubins=(wrong,)))
    assert (kernels / MANIFEST_NAME).read_bytes() == before


def test_a_session_gets_all_kernels_or_one_reason(kernels: Path) -> None:
    wanted = [(OP, VARIANT), ("cam_to_mask", "n4")]
    found = cubins_or_reason(wanted, 87, kernels)
    assert isinstance(found, dict)
    assert [found[key].sm for key in wanted] == [86, 86]
    reason = cubins_or_reason(wanted, 75, kernels)
    assert isinstance(reason, str)
    assert reason.startswith("no cam_to_mask n4 kernel for SM 7.5 (there are 8.0, ")
    assert reason.endswith("; the CPU makes the masks instead")
    (kernels / found[wanted[0]].file).write_bytes(b"other code")
    assert "was changed" in str(cubins_or_reason(wanted, 86, kernels))
    (kernels / MANIFEST_NAME).unlink()
    assert "has no manifest.json" in str(cubins_or_reason(wanted, 86, kernels))


def test_an_installation_without_kernels_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    wanted = "no precompiled kernels in this installation; `make kernels` builds them"
    with pytest.raises(KernelError, match=wanted):
        default_folder()
    assert cubins_or_reason([(OP, VARIANT)], 90) == wanted


def test_nothing_but_numpy_is_needed(repo_root: Path) -> None:
    code = """
import sys
for name in ("torch", "triton", "pydantic", "cuda", "pycuda", "typer", "rich"):
    sys.modules[name] = None
import sshr_deploy.runtime.kernels.manifest
assert "numpy" not in sys.modules
import sshr_deploy.runtime.cuda.base, sshr_deploy.runtime.cuda.cuda_core
import sshr_deploy.runtime.cuda.pycuda
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
