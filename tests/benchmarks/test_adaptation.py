from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sshr_deploy.benchmarks.adaptation import main
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.batch_norms import measure, set_statistics
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.masks import label_map, mask_rule
from sshr_deploy.scores import confusion_matrix
from sshr_deploy.train.adaptation.tuning import Tuning, adapt_network
from sshr_deploy.train.model_session import ModelSession


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two val images of a patch's size, and a training patch of each class alone."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    for index in range(2):
        for folder, levels, shape in (("img", 256, (224, 224, 3)), ("mask", 3, (224, 224))):
            (root / "val" / folder).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, levels, shape, np.uint8)
            Image.fromarray(pixels).save(root / "val" / folder / f"{index}.png")
    (root / "training").mkdir()
    for label in range(3):
        flags = [int(label == other) for other in range(3)]
        pixels = rng.integers(0, 200, (224, 224, 3), np.uint8)
        Image.fromarray(pixels).save(root / "training" / f"{label}-{flags}.png")
    return root


def test_an_image_is_scored_by_a_network_adapted_to_the_others(
    dataset: Path, tmp_path: Path
) -> None:
    profile = load_profile("wsss4luad")
    torch.manual_seed(0)
    model = SSHR(ModelConfig(num_classes=3, width=2)).eval()
    checkpoint, figures = tmp_path / "learned.safetensors", tmp_path / "figures.json"
    header = {"profile": profile.model_dump_json(), "recipe": json.dumps({"batch_norm": "learn"})}
    save_checkpoint(model, checkpoint, metadata=header)
    wanted = ["--quick", "--conditions", "clean", "--json", str(figures)]
    assert main([str(checkpoint), str(dataset), *wanted]) == 0
    report = json.loads(figures.read_text())
    variants = [row["variant"] for row in report["rows"]]
    assert variants[:3] == ["as trained", "precise", "adapted"]
    assert [text for text in variants[3:] if "alone" in text] == variants[3:] and len(variants) == 6

    training = [np.asarray(Image.open(p)) for p in sorted((dataset / "training").iterdir())]
    precise = load_checkpoint(checkpoint)
    moments = measure(
        precise, np.stack(training), on_norm=lambda _, norm, now: set_statistics(norm, now)
    )
    images = [np.asarray(Image.open(dataset / "val" / "img" / f"{i}.png")) for i in range(2)]
    for index, image in enumerate(images):
        other = images[1 - index][None]
        adapted = adapt_network(precise, profile, other, moments, None, Tuning())
        batch = ModelSession(adapted).infer(image[None])
        mask = label_map(batch, 0, mask_rule(profile), height_px=224, width_px=224)
        truth = np.asarray(Image.open(dataset / "val" / "mask" / f"{index}.png"))
        expected = confusion_matrix(truth, mask, 3).tolist()
        assert report["rows"][2]["confusions"][index] == expected
