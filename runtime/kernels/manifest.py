"""Which precompiled kernels there are, and whether their files are whole; no torch, no Triton.

    cubins/
      manifest.json     what each kernel needs to be launched, and the SHA-256 of its file
      sm_90/hfrm_cam-fp16-nhwc-n4.cubin

Only numbers, names and hashes are read here, with the standard library alone: a machine that
measures kernels may have nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sshr_deploy.atomic import atomic_path
from sshr_deploy.errors import KernelError
from sshr_deploy.runtime.kernels.manifest_fields import (
    FIELDS,
    SOURCES,
    VERSION,
    check_cubin,
    check_keys,
    check_value,
)

SCHEMA = 1
KERNELS = Path(__file__).parent
"""Folder with a folder of code for each op."""
FOLDER = KERNELS / "cubins"
"""Of the precompiled kernels."""
MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 4 << 20
_FIX = "install the package again, or build the kernels with `make kernels`"
_FALLBACKS = {
    "hfrm_cam": "the ONNX graph's form of HFRM serves instead",
    "cam_to_mask": "the CPU makes the masks instead",
}
"""The code that does the work of an op where there is no kernel for it."""


@dataclass(frozen=True)
class Cubin:
    """One kernel, compiled for one SM."""

    op: str
    variant: str
    sm: int
    """90 for SM 9.0."""
    arch: str
    """Target of the assembler: "sm_86", or "sm_90a" for code of one architecture alone."""
    file: str
    """Path below the manifest's folder, with "/"."""
    sha256: str
    ptxas: str
    """Version of the assembler."""
    entry: str
    """Name of the kernel inside the file."""
    parameters: tuple[tuple[str, str], ...]
    """Name and Triton type of each argument in order, ("feature", "*fp16"), ("B", "i32")."""
    multiples_of_16: frozenset[str]
    """Integer arguments that have to be divisible by 16; pointers have to be in any case."""
    constants: Mapping[str, int | bool | str]
    num_warps: int
    num_stages: int
    shared_bytes: int
    """Dynamic shared memory of a block."""
    registers: int
    """Of a thread."""
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    folder: Path = field(default=Path(), compare=False, repr=False)
    """Where `file` is; not written."""

    @property
    def label(self) -> str:
        """Op and variant, for messages."""
        return f"{self.op} {self.variant}"

    def runs_on(self, sm: int) -> bool:
        """Whether a device of `sm` can load this.

        Machine code runs on later minor versions of its own major version (CUDA Programming Guide,
        "Binary Compatibility"), so SM 8.7 takes code for 8.6. Code for an architecture with a
        suffix, "sm_90a", runs there alone; Triton makes such code from SM 9.0 on.
        """
        if self.arch[-1].isdigit():
            return self.sm // 10 == sm // 10 and self.sm <= sm
        return self.sm == sm

    def read(self) -> bytes:
        """The machine code, checked against its hash each time.

        Raises:
            KernelError: the file is missing, changed, unreadable or a link out of the folder.
        """
        path = self.folder / self.file
        try:
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise KernelError(f"{path} is a link out of its folder; {_FIX}")
            if path.exists() and not path.is_file():
                raise KernelError(f"{path} is not a file; {_FIX}")
            code = path.read_bytes()
        except FileNotFoundError as error:
            raise KernelError(f"{path} is missing; {_FIX}") from error
        except (OSError, RuntimeError) as error:  # Python 3.11 has RuntimeError for a loop of links
            reason = getattr(error, "strerror", None) or error
            raise KernelError(f"{path} cannot be read: {reason}; {_FIX}") from error
        if hashlib.sha256(code).hexdigest() != self.sha256:
            raise KernelError(f"{path} was changed (its SHA-256 differs); {_FIX}")
        return code


@dataclass(frozen=True)
class KernelManifest:
    """The kernels of one folder."""

    triton: str
    """Version that compiled them."""
    sources: Mapping[str, str]
    """SHA-256 of the source of each op."""
    cubins: tuple[Cubin, ...]

    def find(self, op: str, variant: str, sm: int) -> Cubin:
        """The build of a kernel that suits a device of `sm` best: its own, else the nearest below.

        Raises:
            KernelError: there is none (`Cubin.runs_on` says what suits).
        """
        builds = [cubin for cubin in self.cubins if (cubin.op, cubin.variant) == (op, variant)]
        fitting = [cubin for cubin in builds if cubin.runs_on(sm)]
        if fitting:
            return max(fitting, key=lambda cubin: cubin.sm)
        there = ", ".join(sm_text(cubin.sm) for cubin in sorted(builds, key=lambda c: c.sm))
        fallback = _FALLBACKS.get(op, "the form without kernels serves instead")
        raise KernelError(
            f"no {op} {variant} kernel for SM {sm_text(sm)} "
            f"({f'there are {there}' if there else 'nor for any other'}); {fallback}"
        )


def sm_text(sm: int) -> str:
    """90 -> "9.0", 120 -> "12.0"."""
    return f"{sm // 10}.{sm % 10}"


def default_folder() -> Path:
    """The folder of precompiled kernels of this installation.

    Raises:
        KernelError: it has none.
    """
    if not (FOLDER / MANIFEST_NAME).is_file():
        raise KernelError("no precompiled kernels in this installation; `make kernels` builds them")
    return FOLDER


def load_manifest(folder: Path) -> KernelManifest:
    """Read and check the manifest in `folder`; the kernels' files are checked by `Cubin.read`.

    Raises:
        KernelError: there is none, or it is truncated, changed, of another schema, or has a field
            that is missing, unknown, of a wrong type or a path out of the folder.
    """
    folder = folder.absolute()  # kernels are read later, perhaps from elsewhere
    file = folder / MANIFEST_NAME
    try:
        if not file.is_file():
            raise KernelError(f"{folder} has no {MANIFEST_NAME}; {_FIX}")
        if file.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("it is larger than 4 MiB, which no manifest is")
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise KernelError(f"{file} cannot be read: {error}; {_FIX}") from error
    if not isinstance(content, dict):
        raise KernelError(f"{file} is not a manifest of kernels; {_FIX}")
    if content.get("schema") != SCHEMA:
        schema = str(content.get("schema"))[:20]
        raise KernelError(f"{file} has schema {schema}, this release reads {SCHEMA}; {_FIX}")
    if content.pop("self_sha256", None) != _self_hash(content):
        raise KernelError(f"{file} was changed after it was written; {_FIX}")
    try:
        return _parse(content, folder)
    except ValueError as error:
        raise KernelError(f"{file}: {error}; {_FIX}") from error


def write_manifest(folder: Path, manifest: KernelManifest) -> None:
    """Write the manifest into `folder`, where the kernels' files already are.

    Raises:
        KernelError: a field is wrong, or a file is missing or is not what its hash says.
        OutputError: the folder cannot be written.
    """
    cubins = [{name: _plain(getattr(cubin, name)) for name in FIELDS} for cubin in manifest.cubins]
    sources = dict(manifest.sources)
    content = {"schema": SCHEMA, "triton": manifest.triton, "sources": sources, "cubins": cubins}
    try:
        written = _parse(content, folder)
    except ValueError as error:
        raise KernelError(f"{folder / MANIFEST_NAME} was not written: {error}") from error
    for cubin in written.cubins:
        cubin.read()
    content["self_sha256"] = _self_hash(content)
    with atomic_path(folder / MANIFEST_NAME) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def cubins_or_reason(
    wanted: Iterable[tuple[str, str]], sm: int, folder: Path | None = None
) -> dict[tuple[str, str], Cubin] | str:
    """All kernels that a session wants, whole and fit for its device, or why it cannot have them.

    Args:
        wanted: op and variant of each, ("hfrm_cam", "fp16-nhwc-n4").
        sm: of the device.
        folder: of the manifest; that of this installation by default.

    Returns:
        A kernel for each of `wanted`; or one line for the record of a run that does without.
    """
    try:
        manifest = load_manifest(folder or default_folder())
        found = {(op, variant): manifest.find(op, variant, sm) for op, variant in wanted}
        for cubin in found.values():
            cubin.read()
    except KernelError as error:
        return str(error)
    return found


def _parse(content: dict[str, Any], folder: Path) -> KernelManifest:
    check_keys("the manifest", content, ("schema", "triton", "sources", "cubins"))
    check_value("triton", content["triton"], VERSION)
    check_value("sources", content["sources"], SOURCES)
    entries = content["cubins"]
    if not isinstance(entries, list):
        raise ValueError("cubins is not a list")
    cubins: dict[tuple[str, str, int], Cubin] = {}
    for index, entry in enumerate(entries):
        where = f"cubins[{index}]"
        check_cubin(where, entry)
        key = (entry["op"], entry["variant"], entry["sm"])
        if key in cubins:
            raise ValueError(f"{where} is a second {key[0]} {key[1]} for SM {sm_text(key[2])}")
        parameters = tuple((name, kind) for name, kind in entry["parameters"])
        multiples = frozenset(entry["multiples_of_16"])
        changed = {"parameters": parameters, "multiples_of_16": multiples, "folder": folder}
        cubins[key] = Cubin(**{**entry, **changed})
    return KernelManifest(content["triton"], content["sources"], tuple(cubins.values()))


def _plain(value: Any) -> Any:
    """A field's value as JSON holds it."""
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [list(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _self_hash(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
