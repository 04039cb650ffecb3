"""Take SSHR, a weakly supervised H&E tissue-segmentation network, to the slide scanner."""

__version__ = "0.1.0"
