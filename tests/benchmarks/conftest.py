"""Some benchmarks run kernels."""

from __future__ import annotations

from tests import kernels_anywhere as kernels_anywhere
