"""Kernels compiled ahead of time on a machine without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from sshr_deploy.errors import KernelError, UsageError
from sshr_deploy.runtime.doctor.drivers import FIRST_SM_OF_CUDA_12_9, KERNELS_DRIVER
from sshr_deploy.runtime.kernels.building import build
from sshr_deploy.runtime.kernels.building import compile as compile_
from sshr_deploy.runtime.kernels.manifest import FOLDER, load_manifest, sm_text, write_manifest
from tests.runtime.kernels.kernel_folder import make_kernels


def run_fresh(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the interpreter, which these tests have on, compiles nothing."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


BUILD_MASKS = """
import sys
from sshr_deploy.runtime.kernels.building import build
from sshr_deploy.runtime.kernels.building import compile as compile_
if __name__ == "__main__":
    build.OPS = ("cam_to_mask",)
    sms = [part for sm in sys.argv[2:] for part in ("--sm", sm)]
    sys.exit(build.main([*sms, "--out", sys.argv[1]]))
"""


@pytest.mark.any_triton
def test_build_and_build_again(tmp_path: Path) -> None:
    done = run_fresh(BUILD_MASKS, str(tmp_path), "75", "90", "75")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("SM 7.5  cam_to_mask ranges: ")
    assert lines[-1].startswith("4 kernels, ")
    manifest = load_manifest(tmp_path)
    assert [(c.sm, c.arch) for c in manifest.cubins] == [
        *[(75, "sm_75")] * 2,
        *[(90, "sm_90a")] * 2,
    ]
    for cubin in manifest.cubins:
        assert cubin.read()[:4] == b"\x7fELF"
        assert cubin.registers > 0
        assert cubin.spill_store_bytes == cubin.spill_load_bytes == 0
    kept, lost = (tmp_path / cubin.file for cubin in manifest.cubins[:2])
    before = kept.stat().st_mtime_ns
    lost.write_bytes(b"cut")
    foreign = tmp_path / "sm_75" / "notes.txt"
    foreign.touch()
    done = run_fresh(BUILD_MASKS, str(tmp_path), "75", "90")
    assert done.returncode == 0, done.stderr
    assert "[1/1] SM 7.5  cam_to_mask mask" in done.stderr
    assert kept.stat().st_mtime_ns == before
    assert load_manifest(tmp_path) == manifest
    done = run_fresh(BUILD_MASKS, str(tmp_path), "90")
    assert done.returncode == 0, done.stderr
    assert {c.sm for c in load_manifest(tmp_path).cubins} == {90}
    assert list((tmp_path / "sm_75").iterdir()) == [foreign]


SPILL = """
import sys
from pathlib import Path
from sshr_deploy.errors import KernelError
from sshr_deploy.runtime.kernels.building.compile import compile_to
from sshr_deploy.runtime.kernels.hfrm_cam.plan import Config, cam_variant
variant = cam_variant(Config(1, 64, 64, 1, 1), "fp16", "nhwc", 4, 4)
try:
    compile_to(Path(sys.argv[1]), variant, 80)
except KernelError as error:
    print(error)
"""


def test_a_kernel_that_spills_is_refused(tmp_path: Path) -> None:
    done = run_fresh(SPILL, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "it spills; give its plan smaller blocks for this SM" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.any_triton
@pytest.mark.parametrize("op", build.OPS)
def test_signatures_are_those_of_the_kernels(op: str) -> None:
    kernels = import_module(f"sshr_deploy.runtime.kernels.{op}.triton")
    for sm in build.SMS:
        variants = build.variants(op, sm)
        assert len({variant.name for variant in variants}) == len(variants)
        for variant in variants:
            names = getattr(kernels, variant.function).arg_names
            count = len(variant.signature)
            assert names[:count] == list(variant.signature)
            assert set(names[count:]) == set(variant.constants)
            integers = {n for n, kind in variant.signature.items() if kind == "i32"}
            assert variant.multiples_of_16 <= integers


def test_code_that_needs_a_newer_driver_is_named(tmp_path: Path) -> None:
    folder = make_kernels(tmp_path / "cubins")
    manifest = load_manifest(folder)
    assert build.newer_driver(manifest) is None
    newer = [replace(c, ptxas="13.4.59" if c.sm >= 90 else "12.9.86") for c in manifest.cubins]
    write_manifest(folder, replace(manifest, triton="3.9.0", cubins=tuple(newer)))
    assert build.newer_driver(load_manifest(folder)) == (
        "note: Triton 3.9.0 assembled the kernels for SM 9.0, 10.0, 12.0 with CUDA 13.4.59: they "
        "need a driver of CUDA 13 or later; what the Triton of the extra [kernels] builds needs "
        f"one of CUDA 12, and from SM {sm_text(FIRST_SM_OF_CUDA_12_9)} on driver {KERNELS_DRIVER} "
        "or later"
    )


PTX = """.version 8.7
.visible .entry add(
\t.param .u64 .ptr .global .align 1 add_param_0,
\t.param .u32 add_param_1,
\t.param .u64 .ptr .global .align 1 add_param_2,
\t.param .u64 .ptr .global .align 1 add_param_3
)
.reqntid 128
{
\tld.param.b64 %rd1, [add_param_0];
}
"""


def test_scratch_pointers_are_cut_off() -> None:
    cut = compile_._without_scratch(PTX, "add", 2)
    assert ".param .u32 add_param_1\n)" in cut
    assert "add_param_2" not in cut
    assert cut.endswith(PTX[PTX.index("\n.reqntid") :])


def test_a_scratch_pointer_that_is_used_is_an_error() -> None:
    used = PTX.replace("[add_param_0]", "[add_param_3]")
    with pytest.raises(KernelError, match="add uses add_param_3, which is not in its signature"):
        compile_._without_scratch(used, "add", 2)


def test_resources_are_read_from_the_report() -> None:
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Function properties for k
    16 bytes stack frame, 12 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes cumulative stack size"""
    assert compile_.resources(log) == {
        "registers": 255,
        "stack_bytes": 16,
        "spill_store_bytes": 12,
        "spill_load_bytes": 24,
    }
    with pytest.raises(KernelError, match="ptxas reports no registers"):
        compile_.resources("")


def test_the_interpreter_is_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(UsageError, match="unset TRITON_INTERPRET"):
        build.build(tmp_path)
    assert build.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: Triton's interpreter compiles nothing")


KILLED = """
import multiprocessing, os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from sshr_deploy.runtime.kernels.building.build import _end_with_parent
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_workers_end_with_a_killed_build() -> None:
    worker = int(run_fresh(KILLED).stdout)
    deadline = time.monotonic() + 20
    while _alive(worker):
        assert time.monotonic() < deadline, "the worker lives on"
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not FOLDER.exists(), reason="`make kernels` was not run")
def test_what_make_kernels_built_is_whole_and_spills_nothing() -> None:
    manifest = load_manifest(FOLDER)
    built = {(cubin.op, cubin.variant, cubin.sm) for cubin in manifest.cubins}
    wanted = [
        (op, v.name, sm) for sm in build.SMS for op in build.OPS for v in build.variants(op, sm)
    ]
    assert built == set(wanted)
    for cubin in manifest.cubins:
        cubin.read()
        assert cubin.spill_store_bytes == cubin.spill_load_bytes == 0
        assert cubin.shared_bytes <= (227 << 10 if cubin.sm in (90, 100) else 99 << 10)
        assert cubin.shared_bytes <= 64 << 10 or cubin.sm > 75
    assert json.loads((FOLDER / "manifest.json").read_text())["triton"] == manifest.triton
