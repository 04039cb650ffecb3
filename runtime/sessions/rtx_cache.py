"""What TensorRT-RTX compiled on this GPU, kept for the next time that the engine is opened.

Its engines hold kernels that are compiled when they are first used, which takes seconds. The file
is a by-product of a by-product: whatever is wrong with it, the kernels are compiled again.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from sshr_deploy.atomic import atomic_path
from sshr_deploy.errors import OutputError

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

    def attach(self, rtx_config: Any) -> None:
        """Give the `IRuntimeConfig` a cache with what the file holds; an empty one otherwise.

        A CUDA context has to be current.
        """
        rtx_cache = rtx_config.create_runtime_cache()
        content = self._read()
        if content and rtx_cache.deserialize(content):
            self._kept = content
        if rtx_config.set_runtime_cache(rtx_cache):
            self._cache = rtx_cache

    def save(self) -> None:
        """Write the file, if there is something new in the cache and its folder can be written."""
        rtx_cache = self._cache
        if rtx_cache is None:
            return
        content = bytes(rtx_cache.serialize())
        if content != self._kept:
            with suppress(OutputError), atomic_path(self._path) as partial:
                partial.write_bytes(hashlib.sha256(content).digest() + content)
            self._kept = content

    def detach(self) -> None:
        """Let go of the library's object."""
        self._cache = None

    def _read(self) -> bytes:
        try:
            text = self._path.read_bytes()
        except OSError:
            return b""
        digest, content = text[:_DIGEST_BYTES], text[_DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else b""
