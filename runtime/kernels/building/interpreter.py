"""Triton's interpreter, which runs the kernels on CPU tensors where TRITON_INTERPRET=1 is set."""

from __future__ import annotations

from typing import Any

import triton
from triton.runtime import interpreter

_INTERPRETING = bool(triton.knobs.runtime.interpret)


def interpreting() -> bool:
    """True where TRITON_INTERPRET=1 was set before the kernels were imported."""
    return _INTERPRETING


def _mend_loop_bounds() -> None:
    """Let loops run to a bound that is known at run time.

    Triton before 3.7.1 takes such a bound, an array of one element, as an int in a way that NumPy
    refuses from 2.4 on; later ones do it as here.
    """
    original = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if interpreting():
    _mend_loop_bounds()
