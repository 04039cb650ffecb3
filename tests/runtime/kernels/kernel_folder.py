"""A folder of bytes that stand for kernels, with its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sshr_deploy.runtime.kernels.manifest import (
    MANIFEST_NAME,
    Cubin,
    KernelManifest,
    write_manifest,
)

SMS = (75, 80, 86, 89, 90, 100, 120)
OP, VARIANT = "hfrm_cam", "fp16-nhwc-n4"


def make_cubin(folder: Path, sm: int, op: str = OP, variant: str = VARIANT) -> Cubin:
    """Write bytes that stand for machine code, and describe them."""
    file = f"sm_{sm}/{op}-{variant}.cubin"
    code = f"machine code of {file}".encode()
    (folder / f"sm_{sm}").mkdir(exist_ok=True)
    (folder / file).write_bytes(code)
    return Cubin(
        op=op,
        variant=variant,
        sm=sm,
        arch=f"sm_{sm}" + ("a" if sm >= 90 else ""),
        file=file,
        sha256=hashlib.sha256(code).hexdigest(),
        ptxas="12.8.93",
        entry=f"{op}_kernel",
        parameters=(("feature", "*fp16"), ("B", "i32"), ("C", "i32"), ("gamma", "fp32")),
        multiples_of_16=frozenset({"C", "B"}),
        constants={"N": 4, "UPCAST": False, "UNIT": "c"},
        num_warps=8,
        num_stages=3,
        shared_bytes=65536,
        registers=200,
        stack_bytes=0,
        spill_store_bytes=0,
        spill_load_bytes=0,
    )


def make_kernels(folder: Path) -> Path:
    """Two ops in `folder`, of which "cam_to_mask" lacks SM 7.5."""
    folder.mkdir()
    cubins = [make_cubin(folder, sm) for sm in SMS]
    cubins += [make_cubin(folder, sm, "cam_to_mask", "n4") for sm in SMS[1:]]
    sources = {OP: "1" * 64, "cam_to_mask": "2" * 64}
    write_manifest(folder, KernelManifest("3.6.0", sources, tuple(cubins)))
    return folder


def edit_manifest(
    folder: Path, change: Callable[[dict[str, Any]], object], *, rehash: bool = True
) -> None:
    """Change the manifest, as somebody would who knows how it is hashed."""
    file = folder / MANIFEST_NAME
    content = json.loads(file.read_text())
    change(content)
    if rehash:
        content.pop("self_sha256")
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        content["self_sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    file.write_text(json.dumps(content))
