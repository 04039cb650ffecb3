"""The least work of `hfrm_cam`, which all forms of HFRM plus its head are held against."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sshr_deploy.benchmarks.measuring.gpu_timing import Ceilings


@dataclass(frozen=True)
class Cost:
    """The fewest bytes and the operations of the fused form: what every form is held against."""

    gbyte: float
    gflop: float

    @classmethod
    def of(cls, batch: int, shape: tuple[int, int, int], head_weight: Tensor) -> Cost:
        """The feature, the gate and the weights are read once, the CAM is written once.

        Args:
            batch: B.
            shape: (C, H, W) of the feature.
            head_weight: of the CAM head [N, C], in the type of feature and weights.
        """
        channels, height, width = shape
        classes = len(head_weight)
        pixels = batch * height * width
        element = head_weight.element_size()
        read = pixels * channels * element + 4 * batch * channels
        weights = channels * classes * (1 + 15 * 15) * element
        flop = 2 * pixels * channels * classes * (15 * 15 + 1)
        return cls((read + weights + 4 * pixels * classes) / 1e9, flop / 1e9)

    def against(self, median_ms: float, ceilings: Ceilings) -> dict[str, float]:
        """Achieved rates, the floor in ms, and the share of the floor in the time."""
        floor_ms = max(
            self.gbyte / ceilings.copy_gb_per_s * 1e3,
            self.gflop / ceilings.product_tflop_per_s,
        )
        return {
            "tflop_per_s": self.gflop / median_ms,
            "gb_per_s": self.gbyte / median_ms * 1e3,
            "floor_ms": floor_ms,
            "share_of_floor": floor_ms / median_ms,
        }
