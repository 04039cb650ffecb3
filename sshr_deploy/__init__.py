"""Take SSHR, a weakly supervised H&E tissue-segmentation network, to the slide scanner."""

from sshr_deploy._links import require_links

__version__ = "0.1.0"

require_links(__path__[0])
