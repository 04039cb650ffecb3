"""One kernel: Triton source -> PTX -> machine code, and what it needs of a GPU."""

from __future__ import annotations

import hashlib
import importlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sshr_deploy.atomic import atomic_path
from sshr_deploy.errors import KernelError
from sshr_deploy.runtime.kernels.launch import Variant
from sshr_deploy.runtime.kernels.manifest import Cubin, sm_text

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
        raise KernelError(f"{describe(cubin)}: it spills; give its plan smaller blocks for this SM")
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


def describe(cubin: Cubin) -> str:
    """Registers, shared memory and spills of a kernel, in one line."""
    return (
        f"SM {sm_text(cubin.sm):4} {cubin.op} {cubin.variant}: {cubin.registers} registers, "
        f"{cubin.shared_bytes} bytes shared, {cubin.spill_store_bytes} bytes spilled"
    )
