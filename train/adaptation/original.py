"""An adapted checkpoint still holds the network that training left, so that nothing is lost.

Beside the statistics that it computes with lie the original ones, under names that begin with
`original/`, and the moments of the training set. Whatever adapts it again begins from those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sshr_deploy.atomic import check_writable
from sshr_deploy.bundle import MANIFEST_NAME, file_entry, read_manifest
from sshr_deploy.errors import CheckpointError, UsageError
from sshr_deploy.known_tissue import (
    ADAPTATION_KEY,
    KNOWN_TISSUE_KEY,
    ORIGINAL_TISSUE_KEY,
    Adaptation,
    KnownTissue,
    adaptation_of,
)
from sshr_deploy.model import SSHR
from sshr_deploy.model.batch_norms import (
    MOMENTS_PREFIX,
    Moments,
    batch_norms,
    moments_as_tensors,
)
from sshr_deploy.model.checkpoint import (
    CONFIG_KEY,
    ORIGINAL_PREFIX,
    POSITION_KEY,
    PROFILE_KEY,
    load_checkpoint,
    read_aside,
    read_header,
    save_checkpoint,
)
from sshr_deploy.profiles import Profile

_FIELDS = ("running_mean", "running_var")


@dataclass(frozen=True, eq=False)
class Original:
    """A network as training left it."""

    model: SSHR
    header: dict[str, str]
    sha256: str
    """Of the checkpoint that training wrote."""


def read_original(path: Path) -> Original:
    """The network of a checkpoint as training left it, whether or not it was adapted since.

    Raises:
        UsageError: a bundle.
        CheckpointError: it cannot be read.
    """
    refuse_bundle(path)
    model, header = load_checkpoint(path), read_header(path)
    for key in (CONFIG_KEY, POSITION_KEY, "format"):  # of the file, or of a run that ends here
        header.pop(key, None)
    adaptation = adaptation_of(header, str(path))
    if adaptation is None:
        return Original(model, header, file_entry(path).sha256)
    _restore(path, model)
    del header[ADAPTATION_KEY]
    header.pop(KNOWN_TISSUE_KEY, None)
    if (known := header.pop(ORIGINAL_TISSUE_KEY, None)) is not None:
        header[KNOWN_TISSUE_KEY] = known
    return Original(model, header, adaptation.original_sha256)


def write_adapted(
    out: Path,
    adapted: SSHR,
    original: Original,
    profile: Profile,
    training: Mapping[str, Moments],
    adaptation: Adaptation,
    known: KnownTissue,
) -> None:
    """Write a checkpoint of `adapted` that holds the original statistics too.

    A checkpoint without a profile gets the one that it was adapted with.

    Raises:
        OutputError: it cannot be written.
    """
    header = {PROFILE_KEY: json.dumps(profile.model_dump(mode="json")), **original.header}
    if KNOWN_TISSUE_KEY in header:
        header[ORIGINAL_TISSUE_KEY] = header[KNOWN_TISSUE_KEY]
    header[KNOWN_TISSUE_KEY] = known.model_dump_json()
    header[ADAPTATION_KEY] = adaptation.model_dump_json()
    statistics = {
        f"{ORIGINAL_PREFIX}{name}.{field}": getattr(norm, field)
        for name, norm in batch_norms(original.model).items()
        for field in _FIELDS
    }
    aside = {**statistics, **moments_as_tensors(training)}
    save_checkpoint(adapted, out, metadata=header, aside=aside)


def undo_adaptation(path: Path, out: Path) -> None:
    """Write the checkpoint that an adapted one was made from: weights, statistics and header.

    Raises:
        UsageError: it was not adapted.
        CheckpointError: it cannot be read.
        OutputError: `out` cannot be written.
    """
    if adaptation_of(read_header(path), str(path)) is None:
        raise UsageError(f"{path} was not adapted, so there is nothing to undo; use it as it is")
    original = read_original(path)
    # Moments are the checkpoint's own where it told of its tissue; else `write_adapted` added them.
    own = KNOWN_TISSUE_KEY in original.header
    aside = read_aside(path, MOMENTS_PREFIX) if own else {}
    save_checkpoint(original.model, out, metadata=original.header, aside=aside)


def check_out(path: Path, out: Path, *, overwrite: bool) -> None:
    """Refuse a place for a checkpoint that is made from the one at `path`.

    Raises:
        UsageError: `out` has another ending, is `path` itself, or exists and is not to be replaced.
        OutputError: nothing can be written there.
    """
    if out.suffix.lower() != ".safetensors":
        raise UsageError(f"`out` {out} is a checkpoint: give a name that ends in .safetensors")
    if out.exists():
        if path.exists() and out.samefile(path):
            raise UsageError(f"`out` {out} is the checkpoint that is read; give another name")
        if not overwrite:
            raise UsageError(f"{out} exists; add `overwrite`, or choose another `out`")
    check_writable(out)


def refuse_bundle(path: Path) -> None:
    """Name the checkpoint of a bundle, which is what can be adapted.

    Raises:
        UsageError: `path` is a bundle.
        BundleError: its manifest cannot be read.
    """
    if not (path / MANIFEST_NAME).is_file():
        return
    facts = read_manifest(path)[0].model
    raise UsageError(
        f"{path} is a bundle, which is not adapted itself: give the checkpoint that it was "
        f"exported from, {facts.checkpoint_name} (SHA-256 {facts.checkpoint_sha256}), and export "
        "what comes out"
    )


@torch.no_grad()
def _restore(path: Path, model: SSHR) -> None:
    stored = read_aside(path, ORIGINAL_PREFIX)
    for name, norm in batch_norms(model).items():
        for field in _FIELDS:
            value = stored.get(f"{ORIGINAL_PREFIX}{name}.{field}")
            buffer = getattr(norm, field)
            if value is None or value.shape != buffer.shape or not value.isfinite().all():
                raise CheckpointError(
                    f"{path} is damaged: it was adapted, and the original {field} of {name} is "
                    "missing or no longer usable; adapt the checkpoint that training wrote"
                )
            buffer.copy_(value)
