"""Compile every kernel ahead of time, for every supported GPU, on a machine without one.

    python -m sshr_deploy.runtime.kernels.building.build [--sm 90]... [--out FOLDER]

Needs the extra `kernels` (Triton, which brings NVIDIA's assembler). What is up to date stays.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from sshr_deploy.errors import (
    KernelError,
    MissingExtraError,
    SshrDeployError,
    UsageError,
    first_line,
)
from sshr_deploy.runtime.kernels.building.compile import compile_to, describe
from sshr_deploy.runtime.kernels.launch import Variant
from sshr_deploy.runtime.kernels.manifest import (
    FOLDER,
    KERNELS,
    Cubin,
    KernelManifest,
    load_manifest,
    sm_text,
    write_manifest,
)

OPS = ("hfrm_cam", "hfrm_pool", "cam_to_mask")
SMS = (75, 80, 86, 89, 90, 100, 120)
_PINNED_CUDA = 12
"""Major version of the assemblers in the Triton that the extra [kernels] pins."""


def build(folder: Path, sms: Sequence[int] = SMS, jobs: int | None = None) -> KernelManifest:
    """Compile what is missing or out of date into `folder` and write its manifest.

    Kernels that an earlier manifest names and this one does not, those of other SMs among them, are
    removed. Any other file stays.

    Raises:
        MissingExtraError: Triton is not installed.
        UsageError: Triton's interpreter is switched on.
        KernelError: a kernel does not compile, or spills registers to memory.
        OutputError: the folder cannot be written.
    """
    release = _triton_version()
    sources = {op: source_hash(op) for op in OPS}
    earlier = _earlier(folder)
    kept = {(c.op, c.variant, c.sm): c for c in _up_to_date(earlier, sources, release)}
    wanted = [(v, sm) for sm in dict.fromkeys(sms) for op in OPS for v in variants(op, sm)]
    cubins = [kept[v.op, v.name, sm] for v, sm in wanted if (v.op, v.name, sm) in kept]
    missing = [(v, sm) for v, sm in wanted if (v.op, v.name, sm) not in kept]
    for done, cubin in enumerate(_compiled(folder, missing, jobs), 1):
        cubins.append(cubin)
        print(f"[{done}/{len(missing)}] {describe(cubin)}", file=sys.stderr)
    order = {(v.op, v.name, sm): i for i, (v, sm) in enumerate(wanted)}
    cubins.sort(key=lambda c: order[c.op, c.variant, c.sm])
    write_manifest(folder, KernelManifest(release, sources, tuple(cubins)))
    if earlier is not None:
        _remove(folder, {c.file for c in earlier.cubins} - {c.file for c in cubins})
    return load_manifest(folder)


def _compiled(
    folder: Path, missing: Sequence[tuple[Variant, int]], jobs: int | None
) -> Iterator[Cubin]:
    """Each kernel of `missing` as it is done, in several processes.

    Raises:
        KernelError: a kernel does not compile, or a process died.
    """
    context = get_context("spawn")  # Triton's threads do not survive a fork
    with ProcessPoolExecutor(
        jobs or os.cpu_count(), mp_context=context, initializer=_end_with_parent
    ) as pool:
        futures = [pool.submit(compile_to, folder, variant, sm) for variant, sm in missing]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise KernelError(
                "a process that compiled was killed, perhaps for want of memory; run it again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let a worker end when the process that started it is killed."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def source_hash(op: str) -> str:
    """SHA-256 over what decides the machine code: kernels, plan, and how they are compiled."""
    digest = hashlib.sha256()
    names = (f"{op}/triton.py", f"{op}/plan.py", "launch.py", "building/compile.py")
    for name in names:
        digest.update((KERNELS / name).read_text("utf-8").encode())  # line endings do not count
    return digest.hexdigest()


def variants(op: str, sm: int) -> list[Variant]:
    """The ahead-of-time builds of an op for one SM."""
    module = importlib.import_module(f"sshr_deploy.runtime.kernels.{op}.plan")
    builds: list[Variant] = module.variants(sm)
    return builds


def _triton_version() -> str:
    if os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y"):
        raise UsageError("Triton's interpreter compiles nothing: unset TRITON_INTERPRET")
    try:
        release = version("triton")
        importlib.import_module("triton")
    except (PackageNotFoundError, ModuleNotFoundError) as error:
        raise MissingExtraError("triton", "kernels") from error
    except Exception as error:  # a broken installation raises whatever it likes
        raise KernelError(f"Triton cannot be imported: {first_line(error)}") from error
    return release


def _earlier(folder: Path) -> KernelManifest | None:
    try:
        return load_manifest(folder)
    except KernelError:
        return None


def _up_to_date(
    earlier: KernelManifest | None, sources: dict[str, str], release: str
) -> Iterator[Cubin]:
    """Kernels of an earlier build that a new one would make again."""
    if earlier is None or earlier.triton != release:
        return
    for cubin in earlier.cubins:
        try:
            cubin.read()
        except KernelError:
            continue
        if earlier.sources.get(cubin.op) == sources.get(cubin.op):
            yield cubin


def _remove(folder: Path, files: Iterable[str]) -> None:
    """Remove kernels of an earlier build, and their folders where nothing else is in them."""
    for path in sorted(folder / file for file in files):
        if not path.parent.is_symlink():
            path.unlink(missing_ok=True)
            with suppress(OSError):  # something else is in it
                path.parent.rmdir()


def newer_driver(manifest: KernelManifest) -> str | None:
    """One line where the kernels need a driver of a later CUDA than those of the pinned Triton.

    Those need a driver of CUDA 12, and for SM 10.0 and later one of CUDA 12.9; see
    `doctor.drivers.KERNELS_DRIVER`. Triton 3.7 and later assemble for some SMs with CUDA 13, whose
    code no driver of CUDA 12 loads.
    """
    newer = [cubin for cubin in manifest.cubins if _major(cubin) > _PINNED_CUDA]
    if not newer:
        return None
    sms = ", ".join(dict.fromkeys(sm_text(cubin.sm) for cubin in newer))
    return (
        f"note: Triton {manifest.triton} assembled the kernels for SM {sms} with CUDA "
        f"{max(newer, key=_major).ptxas}: they need a driver of CUDA {max(map(_major, newer))} or "
        "later; what the Triton of the extra [kernels] builds needs one of CUDA 12, and from "
        "SM 10.0 on driver 575 or later"
    )


def _major(cubin: Cubin) -> int:
    return int(cubin.ptxas.partition(".")[0])


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("give the path of a folder")
    return Path(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and print a table of what each kernel uses."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=_folder, default=FOLDER, help="folder for the kernels")
    parser.add_argument(
        "--sm",
        type=int,
        action="append",
        choices=SMS,
        help="only for this SM, 90 for 9.0; kernels for others that are in the folder are removed",
    )
    options = parser.parse_args(arguments)
    try:
        manifest = build(options.out, options.sm or SMS)
    except (UsageError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SshrDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the kernels of the earlier build stay until a run is done", file=sys.stderr)
        return 130
    for cubin in manifest.cubins:
        print(describe(cubin))
    size = sum((options.out / cubin.file).stat().st_size for cubin in manifest.cubins)
    print(f"{len(manifest.cubins)} kernels, {size / 1e6:.1f} MB in {options.out}, none spills")
    note = newer_driver(manifest)
    if note is not None:
        print(note, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
