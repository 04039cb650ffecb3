"""Training patches without augmentation: precise statistics of batch norms, and known tissue.

The running statistics of a batch norm that learns are averages over augmented patches and over
weights that have moved since. Measured at once over clean patches, norm after norm in order of
depth, they are those of the weights that are scored and exported ("precise statistics": Wu and
Johnson, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sshr_deploy.errors import InputError
from sshr_deploy.known_tissue import KNOWN_TISSUE_KEY, Appearance, KnownTissue
from sshr_deploy.model import SSHR
from sshr_deploy.model.batch_norms import Moments, measure, moments_as_tensors, set_statistics
from sshr_deploy.runtime.patches import read_image, resize_to_patch
from sshr_deploy.runtime.slides.appearance import appearance_of
from sshr_deploy.train.adaptation.tuning import predicted_cells, shares_of
from sshr_deploy.train.dataset import TrainingPatch
from sshr_deploy.train.job import TrainingJob
from sshr_deploy.train.recipe import BatchNormMode

_LOOKED_AT = 128
"""Patches at most whose appearance is taken: its first convolution runs in NumPy."""


class Described(NamedTuple):
    """What a checkpoint says of its training set."""

    header: dict[str, str]
    tensors: dict[str, Tensor]
    """Moments of what enters each batch norm, to be kept aside."""


NOTHING = Described({}, {})


class TrainingTissue:
    """Clean patches, evenly spaced over the training set, 150 kB each."""

    def __init__(
        self, job: TrainingJob, patches: Sequence[TrainingPatch], warn: Callable[[str], None]
    ) -> None:
        """Read them; `InputError` if one cannot be read."""
        count = min(job.recipe.precise_statistics, len(patches))
        chosen = np.linspace(0, len(patches) - 1, count).round().astype(int)
        clean = [resize_to_patch(read_image(patches[i].path)) for i in chosen]
        self.rgb = np.stack(clean)  # [P, 224, 224, 3]
        self._source = f"{count} of {len(patches)} training patches of {job.dataset.name}"
        self._profile, self._warn = job.profile, warn
        self._learned = job.recipe.batch_norm is BatchNormMode.LEARN
        self._moments: dict[str, Moments] | None = None

    def settle(self, model: SSHR) -> None:
        """Give batch norms that learned the statistics of these patches; frozen ones stay."""
        if self._learned:
            self._moments = measure(
                _plain(model), self.rgb, on_norm=lambda _, norm, found: set_statistics(norm, found)
            )

    def describe(self, model: SSHR) -> Described:
        """The moments of these patches in `model`, settled, and what it knows by them."""
        plain = _plain(model)
        moments, self._moments = self._moments or measure(plain, self.rgb), None
        header = {}
        appearance = self._appearance(plain)
        if appearance is not None:
            labels = predicted_cells(plain, self._profile, self.rgb).labels
            known = KnownTissue(
                source=self._source,
                patches=len(self.rgb),
                class_shares=shares_of(labels, self._profile.num_classes),
                appearance=appearance,
            )
            header[KNOWN_TISSUE_KEY] = known.model_dump_json()
        return Described(header, moments_as_tensors(moments))

    def _appearance(self, model: SSHR) -> Appearance | None:
        """Of the patches; None, with a warning, where none of them shows tissue."""
        shown = self.rgb[:: -(-len(self.rgb) // _LOOKED_AT)]
        first_layer = model.conv1a.weight.detach().cpu().contiguous().numpy()
        try:
            return appearance_of(shown, first_layer, self._profile.mpp_um)
        except InputError:
            self._warn(
                "no stained tissue was found on the training patches: the checkpoint will not say "
                "how it looks, and infer cannot tell whether a slide fits"
            )
            return None


def _plain(model: SSHR) -> SSHR:
    """A network in evaluation mode over the very tensors of `model`, with ordinary batch norms.

    On several GPUs training replaces those of `model` by synchronised ones.
    """
    with torch.device("meta"):
        plain = SSHR(model.config)
    plain.load_state_dict(model.state_dict(), assign=True)
    return plain.eval()
