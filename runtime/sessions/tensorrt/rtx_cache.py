"""Cache of the code that TensorRT-RTX compiled on this GPU, for the next opening of the engine.

Its engines hold kernels that are compiled when they are first used, which takes seconds. The file
is a by-product of a by-product: whatever is wrong with it, the kernels are compiled again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sshr_deploy.atomic import atomic_path
from sshr_deploy.errors import OutputError, first_line

_DIGEST_BYTES = hashlib.sha256().digest_size


class RtxCache:
    """The runtime cache of one engine; `attach` it before contexts are made, `save` it after runs.

    The file holds the SHA-256 of what follows it, so that the library is not given what was cut off
    or changed. The library itself refuses what another release, GPU or driver wrote.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None
        self._kept = b""
        self.problem = ""
        """Why the library's cache is not used, once it has failed."""

    def attach(self, rtx_config: Any) -> None:
        """Give the `IRuntimeConfig` a cache with what the file holds; an empty one otherwise.

        A CUDA context has to be current.
        """
        with self._problems():
            rtx_cache = rtx_config.create_runtime_cache()
            if rtx_cache is None:
                raise ValueError("the library makes none")
            content = self._read()
            if content and rtx_cache.deserialize(content):
                self._kept = content
            if not rtx_config.set_runtime_cache(rtx_cache):
                raise ValueError("the library does not take it")
            self._cache = rtx_cache

    def save(self) -> None:
        """Write the file, if there is something new in the cache and its folder can be written."""
        rtx_cache = self._cache
        if rtx_cache is None:
            return
        with self._problems():
            memory = rtx_cache.serialize()
            if memory is None:
                raise ValueError("the library does not give its content")
            content = bytes(memory)
            if content != self._kept:
                with suppress(OutputError), atomic_path(self._path) as partial:
                    partial.write_bytes(hashlib.sha256(content).digest() + content)
                self._kept = content

    def detach(self) -> None:
        """Let go of the library's object."""
        self._cache = None

    @contextmanager
    def _problems(self) -> Iterator[None]:
        """Go on without the cache where the block fails."""
        try:
            yield
        except Exception as error:  # the bindings raise several kinds
            self._cache = None
            self.problem = f"runtime cache {self._path} is not used: {first_line(error)}"

    def _read(self) -> bytes:
        try:
            text = self._path.read_bytes()
        except OSError:
            return b""
        digest, content = text[:_DIGEST_BYTES], text[_DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else b""
