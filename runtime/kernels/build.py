"""Compile every kernel ahead of time, for every supported GPU, on a machine without one.

    python -m sshr_deploy.runtime.kernels.build [--sm 90]... [--out FOLDER]

Needs the extra `kernels` (Triton, which brings NVIDIA's assembler). What is up to date stays.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from sshr_deploy.atomic import atomic_path
from sshr_deploy.errors import (
    KernelError,
    MissingExtraError,
    SshrDeployError,
    UsageError,
    first_line,
)
from sshr_deploy.runtime.kernels.launch import Variant
from sshr_deploy.runtime.kernels.manifest import (
    Cubin,
    KernelManifest,
    load_manifest,
    sm_text,
    write_manifest,
)

OPS = ("hfrm_cam", "hfrm_pool", "cam_to_mask")
SMS = (75, 80, 86, 89, 90, 100, 120)
FOLDER = Path(__file__).parent / "cubins"
_RESOURCES = {
    "registers": r"Used (\d+) registers",
    "stack_bytes": r"(\d+) bytes stack frame",
    "spill_store_bytes": r"(\d+) bytes spill stores",
    "spill_load_bytes": r"(\d+) bytes spill loads",
}


@dataclass(frozen=True)
class Compiled:
    """One kernel for one SM as the assembler takes it."""

    ptx: str
    entry: str
    arch: str
    shared_bytes: int


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
        print(f"[{done}/{len(missing)}] {_report(cubin)}", file=sys.stderr)
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
    """SHA-256 over what decides an op's machine code: its kernels, its plan, and this file."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in (
        here / op / "triton.py",
        here / op / "plan.py",
        here / "launch.py",
        Path(__file__),
    ):
        digest.update(path.read_text("utf-8").encode())  # line endings do not count
    return digest.hexdigest()


def variants(op: str, sm: int) -> list[Variant]:
    """The ahead-of-time builds of an op for one SM."""
    module = importlib.import_module(f"sshr_deploy.runtime.kernels.{op}.plan")
    builds: list[Variant] = module.variants(sm)
    return builds


def compile_to(folder: Path, variant: Variant, sm: int) -> Cubin:
    """Compile one kernel, write its machine code below `folder`, and tell what it needs.

    Raises:
        KernelError: it does not compile, or it spills.
        OutputError: the file cannot be written.
    """
    from triton.backends.nvidia.compiler import get_ptxas

    compiled = compile_to_ptx(variant, sm)
    code, log = assemble(compiled, variant.fuse_multiply_add, get_ptxas(sm).path)
    if variant.as_ptx:
        code = compiled.ptx.encode()
    file = f"sm_{sm}/{variant.op}-{variant.name}.{'ptx' if variant.as_ptx else 'cubin'}"
    cubin = Cubin(
        op=variant.op,
        variant=variant.name,
        sm=sm,
        arch=compiled.arch,
        file=file,
        sha256=hashlib.sha256(code).hexdigest(),
        ptxas=str(get_ptxas(sm).version),
        entry=compiled.entry,
        parameters=tuple(variant.signature.items()),
        multiples_of_16=variant.multiples_of_16,
        constants=dict(variant.constants),
        num_warps=variant.num_warps,
        num_stages=variant.num_stages,
        shared_bytes=compiled.shared_bytes,
        folder=folder,
        **resources(log),
    )
    if cubin.spill_store_bytes or cubin.spill_load_bytes:
        raise KernelError(f"{_report(cubin)}: it spills; give its plan smaller blocks for this SM")
    with atomic_path(folder / file) as partial:
        partial.write_bytes(code)
    return cubin


def compile_to_ptx(variant: Variant, sm: int) -> Compiled:
    """Triton source -> PTX whose parameters are those of the signature.

    Raises:
        KernelError: Triton cannot compile it.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import sm_arch_from_capability
    from triton.compiler import ASTSource

    triton.knobs.compilation.disable_line_info = True  # paths of this machine; 3/4 of the size
    module = importlib.import_module(f"sshr_deploy.runtime.kernels.{variant.op}.triton")
    signature = {**variant.signature, **dict.fromkeys(variant.constants, "constexpr")}
    aligned = {n for n, kind in variant.signature.items() if kind.startswith("*")}
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(signature)
        if name in aligned | variant.multiples_of_16
    }
    source = ASTSource(
        fn=getattr(module, variant.function),
        signature=signature,
        constexprs=dict(variant.constants),
        attrs=attributes,
    )
    options = {
        "num_warps": variant.num_warps,
        "num_stages": variant.num_stages,
        "enable_fp_fusion": variant.fuse_multiply_add,
    }
    try:
        kernel: Any = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    except Exception as error:  # Triton's passes raise whatever they like
        raise KernelError(f"{variant.op} {variant.name} for SM {sm_text(sm)}: {error}") from error
    name = kernel.metadata.name
    ptx = _without_scratch(kernel.asm["ptx"], name, len(variant.signature))
    return Compiled(ptx, name, sm_arch_from_capability(sm), kernel.metadata.shared)


def assemble(compiled: Compiled, fuse_multiply_add: bool, ptxas: str) -> tuple[bytes, str]:
    """PTX -> machine code and the assembler's report.

    Raises:
        KernelError: the assembler refuses it.
    """
    with _temporary_folder() as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(compiled.ptx, "utf-8")
        command = [ptxas, "-v", f"--gpu-name={compiled.arch}", str(source), "-o", str(target)]
        command += [] if fuse_multiply_add else ["--fmad=false"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KernelError(f"ptxas refuses {compiled.entry}: {done.stdout}{done.stderr}")
        return target.read_bytes(), done.stderr


@contextmanager
def _temporary_folder() -> Iterator[str]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    except OSError as error:
        raise KernelError(
            f"cannot write to the folder for temporary files: {error.strerror or error}; "
            "free space there or set TMPDIR"
        ) from error


def resources(log: str) -> dict[str, int]:
    """Registers, stack and spills in the report of `ptxas -v` about one kernel.

    Raises:
        KernelError: the report has another form.
    """
    found = {}
    for name, pattern in _RESOURCES.items():
        match = re.search(pattern, log)
        if match is None:
            raise KernelError(f"ptxas reports no {name}: {log}")
        found[name] = int(match[1])
    return found


def _without_scratch(ptx: str, entry: str, parameters: int) -> str:
    """Drop the pointers that Triton adds after the parameters, for scratch memory and profiling.

    Our kernels do not use them; without them a launch passes what the signature says.
    """
    head, body = ptx.split(f".entry {entry}(", 1)
    declared, body = body.split(")", 1)
    lines = [line.strip().rstrip(",") for line in declared.strip().splitlines()]
    for line in lines[parameters:]:
        name = line.split()[-1]
        if name in body or ".u64" not in line:
            raise KernelError(f"{entry} uses {name}, which is not in its signature")
    kept = ",\n\t".join(lines[:parameters])
    return f"{head}.entry {entry}(\n\t{kept}\n){body}"


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


def _report(cubin: Cubin) -> str:
    return (
        f"SM {sm_text(cubin.sm):4} {cubin.op} {cubin.variant}: {cubin.registers} registers, "
        f"{cubin.shared_bytes} bytes shared, {cubin.spill_store_bytes} bytes spilled"
    )


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
        print(_report(cubin))
    size = sum((options.out / cubin.file).stat().st_size for cubin in manifest.cubins)
    print(f"{len(manifest.cubins)} kernels, {size / 1e6:.1f} MB in {options.out}, none spills")
    return 0


if __name__ == "__main__":
    sys.exit(main())
