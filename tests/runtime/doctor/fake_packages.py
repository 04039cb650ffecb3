"""Packages that look installed: a folder for PYTHONPATH with metadata and, if wanted, a module."""

from __future__ import annotations

from pathlib import Path

ONNXRUNTIME = """
import os
__version__ = "{version}"
class SessionOptions:
    def add_session_config_entry(self, name, value):
        pass
class InferenceSession:
    def __init__(self, model, **settings):
        os.write(2, {log!r}.encode())
    def get_providers(self):
        return ["CPUExecutionProvider"]
def get_available_providers():
    os.write(1, b"noise without an end of line")
    return {providers!r}
def preload_dlls():
    print("preloaded")
"""


def put_metadata(folder: Path, name: str, version: str) -> None:
    """What pip leaves of a package beside its module."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def put_module(folder: Path, name: str, code: str) -> None:
    """A module that is found before the real one."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "__init__.py").write_text(code)


def put_onnxruntime_gpu(
    folder: Path, providers: tuple[str, ...] = ("CUDAExecutionProvider",), log: str = ""
) -> None:
    """An onnxruntime-gpu 1.31.1 for CUDA 13 that falls back to the CPU, and logs `log`."""
    put_metadata(folder, "onnxruntime-gpu", "1.31.1")
    code = ONNXRUNTIME.format(version="1.31.1", providers=list(providers), log=log)
    put_module(folder, "onnxruntime", code)
    put_module(folder / "onnxruntime", "capi", "")
    facts = "package_name = 'onnxruntime-gpu'\n__version__ = '1.31.1'\ncuda_version = '13.0'\n"
    (folder / "onnxruntime" / "capi" / "build_and_package_info.py").write_text(facts)
