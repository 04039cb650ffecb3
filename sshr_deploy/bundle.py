"""The bundle: the folder that `sshr-deploy export` writes and everything else reads.

    bundle/
      manifest.json     what it is, hashes of every other file, and how it was qualified
      model.onnx        the FP32 graph for processors; model-fp16.onnx and others beside it
      model.onnx.data   its weights
      model-gpu.onnx    the FP32 graph for GPUs; weights that it does not share are in its own .data
      reference.npz     patches, and what the PyTorch FP32 network says of them
      first-layer.npy   weights of the first convolution, to measure how well a slide fits; only
                        where the manifest says which tissue the network knows
      field.onnx        the same network for fields, on the weights of the graphs for patches;
                        field-gpu.onnx, field-fp16.onnx and others, and reference-fields.npz
      engines/          what each machine built from it and found out; not listed in the manifest

A bundle may come from anywhere. Reading one runs no pickle, follows no path out of its folder and
checks sizes before it reads.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sshr_deploy.errors import BundleError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.manifest import READABLE_VERSIONS, Artifact, FieldGraphs, FileEntry, Manifest
from sshr_deploy.profiles import describe_validation

if TYPE_CHECKING:  # `doctor` loads bundles where NumPy may be broken
    import numpy as np
    from numpy.typing import NDArray

MANIFEST_NAME = "manifest.json"
FIRST_LAYER_NAME = "first-layer.npy"
ENGINES_NAME = "engines"
"""Folder of what this machine built from the bundle; no part of it, see `runtime.engines.store`."""
_MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were found whole and unchanged."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
    fields: FieldGraphs | None = None
    """Set in the bundle that `on_fields` gives: graphs, reference and geometry are these then."""

    def on_fields(self) -> Bundle:
        """The same bundle with its graphs for fields in place of those for patches.

        Raises:
            BundleError: it has none.
        """
        if self.manifest.fields is None:
            raise BundleError(
                f"{self.path} has no graphs for fields; export it again with this release, or "
                "choose `mode` reference"
            )
        return replace(self, fields=self.manifest.fields)

    @property
    def geometry(self) -> Geometry:
        """Of its graphs' inputs."""
        return PATCH if self.fields is None else self.fields.geometry

    @property
    def reference_file(self) -> str:
        """Inputs and the PyTorch FP32 network's outputs for them."""
        return (self.fields or self.manifest).reference_file

    @property
    def graphs(self) -> list[Artifact]:
        """All artefacts of that geometry."""
        return (self.fields or self.manifest).artifacts

    def artifacts(self, engine: str) -> list[Artifact]:
        """Those that `engine`, a name of `engines.kinds`, may run."""
        return [artifact for artifact in self.graphs if engine in artifact.engines]

    def first_layer(self) -> NDArray[np.float32] | None:
        """Weights [C, 3, 3, 3] of the first convolution; None where the known tissue is not stated.

        Raises:
            BundleError: they are not there, or cannot be used.
        """
        import numpy as np

        known = self.manifest.model.known_tissue
        if known is None:
            return None
        path = self.file(FIRST_LAYER_NAME)
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            shape = (len(known.appearance.layer_mean), 3, 3, 3)
            if mapped.dtype != np.float32 or mapped.shape != shape:
                raise ValueError(f"it holds {mapped.dtype} {list(mapped.shape)}")
            return np.array(mapped)
        except (OSError, ValueError, EOFError) as error:
            raise BundleError(f"{path} cannot be read: {error}; export the bundle again") from error

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
    manifest, digest = read_manifest(path)
    for name, entry in manifest.files.items():
        check_file(path, name, entry)
    return Bundle(path, manifest, digest)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into the bundle folder `path`, with a hash of itself.

    Raises:
        OSError: the folder cannot be written.
    """
    (path / MANIFEST_NAME).write_text(sealed_json(manifest.model_dump(mode="json")), "utf-8")


def listed_files(path: Path) -> set[str]:
    """Names that the manifest in folder `path` lists, of any schema; empty if it is no manifest.

    Raises:
        OSError: the manifest cannot be read.
    """
    try:
        content = read_json(path / MANIFEST_NAME)
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


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """The manifest in folder `path` and its hash; the other files are not looked at.

    Raises:
        BundleError: not a bundle, another schema, or a manifest that was changed.
    """
    file = path / MANIFEST_NAME
    try:
        if not file.is_file():
            raise BundleError(
                f"{path} is not a bundle: it has no {MANIFEST_NAME}; "
                "make one with sshr-deploy export"
            )
        content = read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read: {error}; export the bundle again") from error
    if not isinstance(content, dict):
        raise BundleError(f"{file} is not a manifest; export the bundle again")
    version = content.get("schema_version")
    if version not in READABLE_VERSIONS:
        known = " and ".join(map(str, READABLE_VERSIONS))
        raise BundleError(
            f"{file} has schema version {str(version)[:20]}, this release reads {known}; "
            "export the bundle again with this release"
        )
    stated = content.pop("self_sha256", None)
    if stated != self_hash(content):
        raise BundleError(f"{file} was changed after it was written; export the bundle again")
    try:
        return Manifest.model_validate(content), str(stated)
    except ValidationError as error:
        raise BundleError(
            f"{file}: {describe_validation(error)}; export the bundle again"
        ) from error


def read_json(file: Path) -> Any:
    """A JSON file of at most 4 MiB.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, is no file, is larger, or no JSON.
    """
    facts = file.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("it is not a regular file")
    if facts.st_size > _MAX_MANIFEST_BYTES:
        raise ValueError("it is larger than 4 MiB, which no manifest is")
    return json.loads(file.read_text("utf-8"))


def check_file(
    folder: Path, name: str, entry: FileEntry, *, fix: str = "copy the bundle again"
) -> None:
    """Check that a listed file is there, inside `folder`, and unchanged; `fix` ends the message.

    Raises:
        BundleError: it is not.
    """
    path = folder / name
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BundleError(f"{path} is not a file; {fix}")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{path} is a link out of its folder; copy the file itself")
        if facts.st_size != entry.bytes:
            raise BundleError(
                f"{path} has {facts.st_size} bytes, the manifest says {entry.bytes}; {fix}"
            )
        if file_entry(path).sha256 != entry.sha256:
            raise BundleError(
                f"{path} was changed after it was written (its SHA-256 differs); {fix}"
            )
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing; {fix}") from error
    except (OSError, RuntimeError) as error:  # Python 3.11 raises RuntimeError for a loop of links
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path} cannot be read: {reason}; {fix}") from error


def sealed_json(content: dict[str, Any]) -> str:
    """A JSON document with the hash of itself, `self_sha256`, in it."""
    document = {**content, "self_sha256": self_hash(content)}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def self_hash(content: dict[str, Any]) -> str:
    """SHA-256 of a JSON document in canonical form."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
