from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.known_tissue import KNOWN_TISSUE_KEY, KnownTissue
from sshr_deploy.model.batch_norms import measure, moments_as_tensors, set_statistics
from sshr_deploy.model.checkpoint import PROFILE_KEY, load_checkpoint, save_checkpoint
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.slides import open_slide, read_area, resolve_mpp
from sshr_deploy.runtime.slides.appearance import appearance_of
from sshr_deploy.train.adaptation.tuning import predicted_cells, shares_of

Rgb = NDArray[np.uint8]


@pytest.fixture(scope="session")
def tissue(demo_slide: Path) -> Rgb:
    """Four patches [4, 224, 224, 3] of the demo slide, nearly all tissue."""
    with open_slide(demo_slide) as reader:
        area = read_area(
            reader,
            resolve_mpp(reader, None),
            target_mpp_um=1.0,
            l0_x=680,
            l0_y=2020,
            width_px=448,
            height_px=448,
        )
    return np.stack([area[y : y + 224, x : x + 224] for y in (0, 224) for x in (0, 224)])


@pytest.fixture(scope="session")
def learned(
    tmp_path_factory: pytest.TempPathFactory,
    small_checkpoint: Path,
    profile: Profile,
    tissue: Rgb,
) -> Path:
    """A tiny network with the statistics of `tissue`, which it knows, as training writes it."""
    model = load_checkpoint(small_checkpoint)
    moments = measure(model, tissue, on_norm=lambda _, norm, now: set_statistics(norm, now))
    shares = shares_of(predicted_cells(model, profile, tissue).labels, profile.num_classes)
    known = KnownTissue(
        source="4 tissue patches",
        patches=4,
        class_shares=shares,
        appearance=appearance_of(tissue, model.conv1a.weight.detach().numpy(), profile.mpp_um),
    )
    header = {
        PROFILE_KEY: json.dumps(profile.model_dump(mode="json")),
        "recipe": json.dumps({"batch_norm": "learn"}),
        KNOWN_TISSUE_KEY: known.model_dump_json(),
    }
    path = tmp_path_factory.mktemp("learned") / "learned.safetensors"
    save_checkpoint(model, path, metadata=header, aside=moments_as_tensors(moments))
    return path


@pytest.fixture(scope="session")
def scanned(tmp_path_factory: pytest.TempPathFactory, tissue: Rgb) -> Path:
    """A folder with the same tissue as another scanner would see it, an image a patch."""
    folder = tmp_path_factory.mktemp("scanner") / "lab-b"
    folder.mkdir()
    for index, rgb in enumerate(tissue):
        tinted = (rgb * np.array([1.0, 0.97, 0.88])).astype(np.uint8)
        Image.fromarray(tinted).save(folder / f"{index}.png")
    return folder
