"""The bundle: the folder that `sshr-deploy export` writes and everything else reads.

    bundle/
      manifest.json     what it is, hashes of every other file, and how it was qualified
      model.onnx        the graph
      model.onnx.data   its weights

A bundle may come from anywhere. Reading one runs no pickle, follows no path out of its folder and
checks sizes before it reads.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sshr_deploy.errors import BundleError
from sshr_deploy.profiles import Profile, describe_validation

SCHEMA_VERSION: Literal[1] = 1
MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 4 << 20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Frozen):
    """Size in bytes and SHA-256 of one file of the bundle."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Qualification(_Frozen):
    """How far an artefact is from the PyTorch FP32 network, on real patches."""

    reference: str
    engine: str
    """What ran the artefact, "onnx-cpu, onnxruntime 1.32.0"."""
    patches: int
    source: str
    """Where the patches came from."""
    cam_relative_error: dict[str, float]
    """RMS error over RMS reference by output, the worst patch."""
    prob_max_abs_error: float
    gates_equal: bool
    """The same classes are switched on in every patch, at the profile's threshold."""
    mask_agreement: float
    """Share of mask pixels with the same label, over all patches."""
    mask_agreement_worst: float
    """The same in the worst patch."""


class Artifact(_Frozen):
    """One engine file of the bundle."""

    engine: Literal["onnx"]
    precision: Literal["fp32"]
    file: str
    opset: int
    hfrm_form: str
    qualification: Qualification


class ModelFacts(_Frozen):
    """Where the weights came from."""

    width: int
    num_classes: int
    parameters: int
    gflop_per_patch: float
    """Multiplications and additions of convolutions and matrix products in the graph, in 1e9."""
    checkpoint_name: str
    checkpoint_sha256: Sha256
    metadata: dict[str, str] = {}
    """What the checkpoint's own header says, such as what it was trained on."""


class Manifest(_Frozen):
    """Content of `manifest.json`."""

    schema_version: Literal[1]
    created_utc: str
    profile: Profile
    model: ModelFacts
    tool_versions: dict[str, str]
    artifacts: Annotated[list[Artifact], Field(min_length=1)]
    files: dict[str, FileEntry]

    @field_validator("files")
    @classmethod
    def _names_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if not _is_inside(name):
                raise ValueError(f"file name {name!r} leaves the bundle's folder")
        return files


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were found whole and unchanged."""

    path: Path
    manifest: Manifest
    manifest_sha256: str

    def artifact(self, engine: str) -> Artifact:
        """The artefact for `engine` ("onnx").

        Raises:
            BundleError: the bundle has none.
        """
        for artifact in self.manifest.artifacts:
            if artifact.engine == engine:
                return artifact
        raise BundleError(f"{self.path} has no {engine} artefact; export it again")

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists.

        Raises:
            BundleError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleError(
                f"{self.path / MANIFEST_NAME} does not list {name}; export the bundle again"
            )
        return self.path / name


def load_bundle(path: Path) -> Bundle:
    """Read a bundle and check every file against the manifest.

    Raises:
        BundleError: not a bundle; another schema; a file that is missing, changed, truncated or
            outside the folder (named).
    """
    manifest, digest = _read_manifest(path)
    for name, entry in manifest.files.items():
        _check_file(path, name, entry)
    return Bundle(path, manifest, digest)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into the bundle folder `path`, with a hash of itself.

    Raises:
        OSError: the folder cannot be written.
    """
    content = manifest.model_dump(mode="json")
    text = json.dumps({**content, "self_sha256": _self_hash(content)}, indent=2, ensure_ascii=False)
    (path / MANIFEST_NAME).write_text(text + "\n", "utf-8")


def listed_files(path: Path) -> set[str]:
    """Names that the manifest in folder `path` lists, of any schema; empty if it is no manifest.

    Raises:
        OSError: the manifest cannot be read.
    """
    try:
        content = _read_json(path / MANIFEST_NAME)
    except (ValueError, RecursionError):
        return set()
    is_ours = isinstance(content, dict) and {"schema_version", "self_sha256"} <= set(content)
    files = content.get("files") if is_ours else None
    return set(files) if isinstance(files, dict) else set()


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(bytes=path.stat().st_size, sha256=digest)


def _read_manifest(path: Path) -> tuple[Manifest, str]:
    file = path / MANIFEST_NAME
    try:
        if not file.is_file():
            raise BundleError(
                f"{path} is not a bundle: it has no {MANIFEST_NAME}; "
                "make one with sshr-deploy export"
            )
        content = _read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read: {error}; export the bundle again") from error
    if not isinstance(content, dict):
        raise BundleError(f"{file} is not a manifest; export the bundle again")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{file} has schema version {str(version)[:20]}, this release reads {SCHEMA_VERSION}; "
            "export the bundle again with this release"
        )
    stated = content.pop("self_sha256", None)
    if stated != _self_hash(content):
        raise BundleError(f"{file} was changed after it was written; export the bundle again")
    try:
        return Manifest.model_validate(content), str(stated)
    except ValidationError as error:
        raise BundleError(
            f"{file}: {describe_validation(error)}; export the bundle again"
        ) from error


def _read_json(file: Path) -> Any:
    if file.stat().st_size > _MAX_MANIFEST_BYTES:
        raise ValueError("it is larger than 4 MiB, which no manifest is")
    return json.loads(file.read_text("utf-8"))


def _check_file(folder: Path, name: str, entry: FileEntry) -> None:
    path = folder / name
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BundleError(f"{path} is not a file; copy the bundle again")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{path} is a link out of the bundle; copy the file itself")
        if facts.st_size != entry.bytes:
            raise BundleError(
                f"{path} has {facts.st_size} bytes, the manifest says {entry.bytes}; "
                "copy the bundle again"
            )
        if file_entry(path).sha256 != entry.sha256:
            raise BundleError(
                f"{path} was changed after the export (its SHA-256 differs); "
                "export the bundle again"
            )
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing; copy the bundle again") from error
    except (OSError, RuntimeError) as error:  # Python 3.11 raises RuntimeError for a loop of links
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path} cannot be read: {reason}; copy the bundle again") from error


def _is_inside(name: str) -> bool:
    for pure in (PurePosixPath(name), PureWindowsPath(name)):
        if pure.is_absolute() or pure.drive or ".." in pure.parts or not pure.parts:
            return False
    return name.isprintable()


def _self_hash(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
