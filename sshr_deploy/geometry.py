"""The square that the network computes at once: one patch, or a larger field with windows on it.

Units: a cell is one place of the CAMs, 8 x 8 px of the input.
"""

from __future__ import annotations

from dataclasses import dataclass

PATCH_PX = 224
"""Height and width of a patch as the network takes it, in pixels."""
CELL_PX = 8
PATCH_CELLS = PATCH_PX // CELL_PX
BLOCK_CELLS = 7
"""Fields, margins, windows and their strides are whole blocks of cells: a window's mean is then a
mean of the means of blocks, and fields are laid on a raster of blocks."""
BLOCK_PX = BLOCK_CELLS * CELL_PX
MARGIN_PX = 56
FIELD_WINDOW_CELLS = 2 * PATCH_CELLS
"""Windows of two patch sides: on a trained network as good as one's, and labels depend less on
where a field lies (`benchmarks/notes.md`)."""
MAX_SIDE_PX = 8 * 1344
"""Of a field; features of more would not fit a workstation's memory."""


@dataclass(frozen=True)
class Geometry:
    """A square input and what is kept of it.

    What the published network takes over one patch (the mean of its deep features, the gates, the
    probabilities) is taken over windows of `window_cells` at every `stride_cells`, and interpolated
    between their centres. A field of one window is the published network.

    Raises:
        ValueError: sides that are no whole blocks, or do not fit each other.
    """

    side_px: int = PATCH_PX
    """Height and width of the input; of a graph that takes several, the largest."""
    margin_px: int = 0
    """Left out of the outputs on each side: what is seen there depends on where the field ends."""
    window_cells: int = PATCH_CELLS
    stride_cells: int = 2 * BLOCK_CELLS

    def __post_init__(self) -> None:
        sides = {
            "side_px": (self.side_px, BLOCK_PX),
            "margin_px": (self.margin_px, BLOCK_PX),
            "window_cells": (self.window_cells, BLOCK_CELLS),
            "stride_cells": (self.stride_cells, BLOCK_CELLS),
        }
        for name, (value, block) in sides.items():
            if value % block or value < (0 if name == "margin_px" else block):
                raise ValueError(f"{name} is {value}, which is no multiple of {block}")
        if self.side_px > MAX_SIDE_PX:
            raise ValueError(f"side_px is {self.side_px}, above {MAX_SIDE_PX}")
        if self.core_px < BLOCK_PX:
            raise ValueError(
                f"a margin of {self.margin_px} px leaves nothing of a field of {self.side_px} px"
            )
        if self.window_cells > self.cells:
            raise ValueError(f"a field of {self.cells} cells has no window of {self.window_cells}")
        if (self.cells - self.window_cells) % self.stride_cells:
            raise ValueError(
                f"windows of {self.window_cells} cells at every {self.stride_cells} do not fit a "
                f"field of {self.side_px} px; its side must be {self.window_px} px and any "
                f"multiple of {self.step_px} px"
            )
        if (self.window_cells - self.stride_cells) % 2 or self.stride_cells > self.window_cells:
            raise ValueError(
                f"windows of {self.window_cells} cells cannot follow at every {self.stride_cells}: "
                "the difference must be even and not negative"
            )

    @property
    def is_patch(self) -> bool:
        """Whether it is one window, all of it kept: the published network."""
        return self.windows == 1 and self.margin_px == 0

    @property
    def inputs(self) -> str:
        """Words for them: "patches", or "fields of 896 px"."""
        return "patches" if self.is_patch else f"fields of {self.side_px} px"

    @property
    def cells(self) -> int:
        """Along a side of the input."""
        return self.side_px // CELL_PX

    @property
    def window_px(self) -> int:
        """Along a side of a window: the least side of a field."""
        return self.window_cells * CELL_PX

    @property
    def step_px(self) -> int:
        """Sides of fields differ by multiples of this."""
        return self.stride_cells * CELL_PX

    def fits(self, side_px: int) -> bool:
        """Whether a graph that takes several sides takes this one."""
        least = max(self.window_px, 2 * self.margin_px + 1)
        return least <= side_px <= self.side_px and (side_px - self.window_px) % self.step_px == 0

    @property
    def core_px(self) -> int:
        """Along a side of what is kept."""
        return self.side_px - 2 * self.margin_px

    @property
    def core_cells(self) -> int:
        """The same in cells."""
        return self.core_px // CELL_PX

    @property
    def margin_cells(self) -> int:
        """Left out on each side."""
        return self.margin_px // CELL_PX

    @property
    def windows(self) -> int:
        """Windows along a side."""
        return (self.cells - self.window_cells) // self.stride_cells + 1

    @property
    def work(self) -> float:
        """Pixels computed for each pixel that is kept."""
        return (self.side_px / self.core_px) ** 2

    def prob_shape(self, classes: int) -> tuple[int, ...]:
        """Shape of the probabilities of one input: [N] of a patch, else a map."""
        return (classes,) if self.is_patch else self.cam_shape(classes)

    def cam_shape(self, classes: int) -> tuple[int, int, int]:
        """Shape of a CAM of one input, [N, core_cells, core_cells]."""
        return (classes, self.core_cells, self.core_cells)

    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one input, [side_px, side_px, 3]."""
        return (self.side_px, self.side_px, 3)


PATCH = Geometry()
"""The published network's own input."""


def field_geometry(side_px: int) -> Geometry:
    """A field of `side_px` with the usual margin and windows.

    Raises:
        ValueError: impossible, see `Geometry`.
    """
    return Geometry(side_px, MARGIN_PX, FIELD_WINDOW_CELLS)
