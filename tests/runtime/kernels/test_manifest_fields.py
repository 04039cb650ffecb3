from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.errors import KernelError
from sshr_deploy.runtime.kernels.manifest import MANIFEST_NAME, load_manifest
from tests.runtime.kernels.kernel_folder import OP, edit_manifest, make_kernels


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    return make_kernels(tmp_path / "cubins")


@pytest.mark.parametrize("kept", [0, 1, 100, -2])
def test_a_truncated_manifest_is_refused(kernels: Path, kept: int) -> None:
    file = kernels / MANIFEST_NAME
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(KernelError, match=r"manifest\.json cannot be read"):
        load_manifest(kernels)


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "{}", "[" * 100_000, "\udcff", '{"a": NaN}'])
def test_files_that_are_no_manifest_are_refused(kernels: Path, text: str) -> None:
    (kernels / MANIFEST_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(KernelError, match=MANIFEST_NAME):
        load_manifest(kernels)


def test_a_huge_manifest_is_not_read(kernels: Path) -> None:
    with (kernels / MANIFEST_NAME).open("r+b") as file:
        file.truncate(1 << 33)
    with pytest.raises(KernelError, match="larger than 4 MiB"):
        load_manifest(kernels)


def _set(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update(values)


def _entry(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["cubins"][1].update(values)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_set(schema=2), "schema 2, this release reads 1"),
        (_set(schema="9" * 999), r"schema 9{20}, this"),
        (_set(surprise=1), "the manifest has an unknown field 'surprise'"),
        (lambda m: m.pop("triton"), "the manifest has no triton"),
        (_set(triton=3.6), r"triton is 3\.6; it must be a name"),
        (_set(sources={OP: "abc"}), "sources is .* a SHA-256"),
        (_set(cubins={}), "cubins is not a list"),
        (lambda m: m["cubins"].append(3), r"cubins\[13\] is not an object"),
        (lambda m: m["cubins"].append(m["cubins"][0]), r"second hfrm_cam fp16-nhwc-n4 for SM 7\.5"),
        (lambda m: m["cubins"][1].pop("entry"), r"cubins\[1\] has no entry"),
        (_entry(folder="/"), "unknown field 'folder'"),
        (_entry(sm="80"), r"cubins\[1\]\.sm is '80'; it must be a whole number from 50 to 999"),
        (_entry(sm=True), r"cubins\[1\]\.sm is True"),
        (_entry(sm=86), r"arch is 'sm_80', which is not for SM 86"),
        (_entry(num_warps=0), "num_warps is 0; it must be a whole number from 1 to 32"),
        (_entry(num_warps=8.0), r"num_warps is 8\.0"),
        (_entry(shared_bytes=-1), "shared_bytes is -1"),
        (_entry(entry="a b"), "entry is 'a b'; it must be the name of a kernel"),
        (_entry(sha256="0" * 63), "sha256 is"),
        (_entry(parameters=[["x", "*fp17"]]), "parameters is"),
        (_entry(parameters=[["x", "fp32", 1]]), "parameters is"),
        (_entry(parameters=[["x", "i32"], ["x", "i32"]]), "names a parameter twice"),
        (_entry(parameters="x"), "parameters is 'x'"),
        (_entry(multiples_of_16=["D"]), "names 'D', no integer parameter"),
        (_entry(multiples_of_16=["gamma"]), "names 'gamma', no integer parameter"),
        (_entry(constants={"N": 1.5}), "constants is"),
        (_entry(constants=[]), r"constants is \[\]"),
    ],
)
def test_unusable_fields_are_named(
    kernels: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    edit_manifest(kernels, change)
    with pytest.raises(KernelError, match=named) as caught:
        load_manifest(kernels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["../secret", "/etc/passwd", "a/../../b", "C:\\x", "..\\x", "C:x", "", "a\nb", "a//b", "."],
)
def test_paths_that_leave_the_folder_are_refused(kernels: Path, path: str) -> None:
    edit_manifest(kernels, _entry(file=path))
    with pytest.raises(KernelError, match=r"cubins\[1\]\.file is .* inside the manifest's folder"):
        load_manifest(kernels)
