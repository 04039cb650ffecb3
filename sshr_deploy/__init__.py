"""Take SSHR, a weakly supervised H&E tissue-segmentation network, to the slide scanner.

The Python API is `load` and what it gives, see `sshr_deploy.api`; it is imported when first used.
"""

from __future__ import annotations

from sshr_deploy._links import require_links
from sshr_deploy.version import __version__ as __version__

TYPE_CHECKING = False  # as of `typing`, whose import takes longer than all else here
if TYPE_CHECKING:
    from sshr_deploy.api import Model as Model
    from sshr_deploy.api import load as load

require_links(__path__[0])


def __getattr__(name: str) -> object:
    if name in ("Model", "load"):
        from sshr_deploy import api

        return getattr(api, name)
    raise AttributeError(f"module 'sshr_deploy' has no attribute {name!r}")
