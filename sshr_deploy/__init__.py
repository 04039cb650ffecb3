"""Take SSHR, a weakly supervised H&E tissue-segmentation network, to the slide scanner.

The Python API is `load` and what it gives, see `sshr_deploy.api`; it is imported when first used.
"""

from __future__ import annotations

from sshr_deploy._links import require_links
from sshr_deploy.version import __version__

require_links(__path__[0])


__all__ = ["Model", "__version__", "load"]

TYPE_CHECKING = False  # as of `typing`, whose import takes longer than all else here
if TYPE_CHECKING:
    from sshr_deploy.api import Model, load
else:

    def __getattr__(name):
        if name in __all__:
            from sshr_deploy import api

            return getattr(api, name)
        raise AttributeError(f"module 'sshr_deploy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
