"""The two numbers that fix every tensor shape of an SSHR network."""

from __future__ import annotations

from dataclasses import dataclass

FULL_WIDTH = 64
"""Channels of the first convolution in the published network."""

MAX_WIDTH = 1024
"""Far beyond any use; a hostile file must not make us allocate for more."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a network.

    `width` scales every channel count: 64 is the published network (112.7 M parameters), 8 is the
    same network with 1/8 of the channels (1.8 M).

    Raises:
        ValueError: width outside 1-1024 or num_classes outside 1-16, or no whole numbers.
    """

    num_classes: int
    width: int = FULL_WIDTH

    def __post_init__(self) -> None:
        if type(self.width) is not int or type(self.num_classes) is not int:
            raise ValueError(f"width and num_classes must be whole numbers, not {self}")
        if not 1 <= self.width <= MAX_WIDTH:
            raise ValueError(f"width must be 1 to {MAX_WIDTH}, not {self.width}")
        if not 1 <= self.num_classes <= 16:
            raise ValueError(f"num_classes must be 1 to 16, not {self.num_classes}")
