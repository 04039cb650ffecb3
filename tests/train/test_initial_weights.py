from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sshr_deploy.errors import CheckpointError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.checkpoint import save_checkpoint
from sshr_deploy.train.initial_weights import LoadedWeights, load_initial_weights, new_model
from tests.train.test_mxnet_params import params_bytes

CONFIG = ModelConfig(num_classes=3, width=2)
TENSORS = 221  # of state_dict.json's 260, less 39 counters of batch norms


@pytest.fixture(scope="module")
def trained() -> SSHR:
    """A network of which no tensor is what a new one has."""
    model = new_model(CONFIG, seed=5)
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        else:
            tensor.fill_(9)
    return model


@pytest.fixture
def tensors(trained: SSHR) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trained.state_dict().items()}


def weights(model: SSHR) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def mxnet_arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The backbone as the ImageNet file has it: without bn45 and bn52, with its classifier."""
    suffixes = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
    out = {"arg:conv1a_weight": tensors["conv1a.weight"].numpy()}
    for name, tensor in tensors.items():
        block, layer, *rest = name.split(".")
        if not rest and block != "bn7":
            continue
        suffix = suffixes.get(name.rpartition(".")[2], "moving_var")
        kind = "aux" if suffix.startswith("moving") else "arg"
        if block == "bn7" and layer != "num_batches_tracked":
            out[f"{kind}:bn7_{suffix}"] = tensor.numpy()
        elif block.startswith("b") and rest and rest != ["num_batches_tracked"]:
            stage, _, number = block[1:].partition("_")
            place = f"{stage}b{number}" if number else f"{stage}a"
            what, _, branch = layer.partition("_")
            if what == "conv":
                out[f"arg:res{place}_{branch}_weight"] = tensor.numpy()
            else:
                out[f"{kind}:bn{place}_{branch}_{suffix}"] = tensor.numpy()
    out["arg:linear1000_weight"] = np.ones((10, 4), np.float32)
    out["arg:linear1000_bias"] = np.ones(10, np.float32)
    return out


def test_one_seed_gives_one_network_and_leaves_the_random_state() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = weights(new_model(CONFIG, seed=1))
    assert torch.equal(torch.rand(4), expected)
    assert same(first, weights(new_model(CONFIG, seed=1)))
    assert not torch.equal(
        first["conv1a.weight"], new_model(CONFIG, seed=2).state_dict()["conv1a.weight"]
    )


def test_convolutions_have_the_spread_of_he_et_al_and_hfrm_starts_as_published() -> None:
    tensors = weights(new_model(ModelConfig(num_classes=4, width=4), seed=0))
    for name, tensor in tensors.items():
        if ".conv_" in name:
            expected = (2 / tensor[0].numel()) ** 0.5
            assert tensor.std().item() == pytest.approx(expected, rel=0.2), name
        elif name.endswith("context_conv.weight"):
            assert torch.all(tensor == 1 / 225)
        elif "gamma_" in name:
            assert torch.all(tensor == 0)
    assert tensors["fc8.weight"].abs().max() <= tensors["fc8.weight"].shape[1] ** -0.5


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_whole_checkpoint_replaces_everything(trained: SSHR, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    if suffix == ".safetensors":
        save_checkpoint(trained, path)
    else:
        torch.save(trained.state_dict(), path)
    model = new_model(CONFIG, seed=0)
    result = load_initial_weights(model, path)
    assert same(weights(model), weights(trained))
    assert result.new == ()
    assert result.describe() == f"init: {TENSORS} of {TENSORS} tensors from {path}"


@pytest.mark.parametrize("form", ["legacy", "v1", "v2", "v3"])
def test_imagenet_weights_fill_the_backbone(
    tensors: dict[str, Tensor], tmp_path: Path, form: str
) -> None:
    path = tmp_path / "imagenet.params"
    path.write_bytes(params_bytes(mxnet_arrays(tensors), form))
    model = new_model(CONFIG, seed=0)
    before = weights(model)
    result = load_initial_weights(model, path)
    after = weights(model)
    assert result.describe() == (
        f"init: 191 of {TENSORS} tensors from {path}; "
        "new: bn45, bn52, hfrm_56, hfrm_28_1, hfrm_28_2, ic_56, ic1, ic2, fc8"
    )
    assert all(torch.equal(after[name], tensors[name]) for name in result.loaded)
    assert all(torch.equal(after[name], before[name]) for name in result.new)
    x = torch.linspace(0, 2, 16).expand(1, 16, 4, 16).mT
    assert torch.allclose(model.bn45.eval()(x), x, atol=2e-5)


def test_another_class_count_keeps_all_but_the_heads(trained: SSHR, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(trained, path)
    model = new_model(replace(CONFIG, num_classes=5), seed=0)
    before = weights(model)
    result = load_initial_weights(model, path)
    assert result.describe().endswith("; new: ic_56, ic1, ic2, fc8")
    after, source = weights(model), weights(trained)
    assert all(torch.equal(after[name], source[name]) for name in result.loaded)
    assert all(torch.equal(after[name], before[name]) for name in result.new)


def test_halves_doubles_and_missing_counters_are_fine(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    kept = {k: v.double() for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    kept["conv1a.weight"] = kept["conv1a.weight"].half()
    kept["linear1000.weight"] = torch.ones(10, 128)
    torch.save(kept, tmp_path / "m.pth")
    model = new_model(CONFIG, seed=0)
    assert load_initial_weights(model, tmp_path / "m.pth").new == ()
    after = weights(model)
    assert after["conv1a.weight"].dtype == after["bn7.weight"].dtype == torch.float32
    assert torch.equal(after["conv1a.weight"], kept["conv1a.weight"].float())
    assert torch.equal(after["bn7.weight"], tensors["bn7.weight"])
    assert after["bn7.num_batches_tracked"] == 0


def test_partly_new_modules_are_counted() -> None:
    result = LoadedWeights(Path("F"), ("conv1a.weight", "ic1.weight"), ("ic1.bias", "fc8.weight"))
    assert result.describe() == "init: 2 of 4 tensors from F; new: ic1 (1 of 2), fc8"


def _nan(tensors: dict[str, Tensor]) -> None:
    tensors["b3.conv_branch2a.weight"][0, 0, 0, 0] = float("nan")


def _too_large(tensors: dict[str, Tensor]) -> None:
    tensors["bn7.weight"] = torch.full_like(tensors["bn7.weight"], 1e300, dtype=torch.float64)


def _whole_numbers(tensors: dict[str, Tensor]) -> None:
    tensors["bn7.weight"] = tensors["bn7.weight"].int()


def _foreign(tensors: dict[str, Tensor]) -> None:
    tensors.update({f"decoder.{i}": torch.ones(1) for i in range(10)})


def _misshapen(tensors: dict[str, Tensor]) -> None:
    tensors["hfrm_56.gamma_veto"] = torch.ones(2)


def _other_head(tensors: dict[str, Tensor]) -> None:
    tensors["ic1.weight"] = torch.ones(3, 15, 1, 1)


def _mixed_heads(tensors: dict[str, Tensor]) -> None:
    tensors["ic1.bias"] = torch.ones(4)


def _only_other_heads(tensors: dict[str, Tensor]) -> None:
    tensors.clear()
    tensors["fc8.weight"] = torch.ones(20, 128, 1, 1)


def _only_counters(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if not name.endswith("num_batches_tracked")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_nan, r"width 2: b3\.conv_branch2a\.weight has NaN or infinite values"),
        (_too_large, r"bn7\.weight has NaN or infinite values"),
        (_whole_numbers, r"bn7\.weight is torch\.int32"),
        (_foreign, r"does not have: decoder\.0, .*decoder\.7 and 2 more; give"),
        (_misshapen, r"width 2: hfrm_56\.gamma_veto is \[2\], not \[1\]"),
        (_other_head, r"ic1\.weight is \[3, 15, 1, 1\], not \[3, 16, 1, 1\]"),
        (_mixed_heads, r"different class counts \(3, 4\)"),
        (_only_other_heads, "no tensor that fits SSHR with 3 classes"),
        (_only_counters, "no tensor that fits"),
        (dict.clear, "no tensor that fits"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_does_not_fit_is_refused_and_changes_nothing(
    tensors: dict[str, Tensor],
    tmp_path: Path,
    spoil: Callable[[dict[str, Tensor]], None],
    named: str,
    suffix: str,
) -> None:
    spoil(tensors)
    path = tmp_path / f"m{suffix}"
    (torch.save if suffix == ".pth" else save_file)(tensors, path)
    model = new_model(CONFIG, seed=0)
    before = weights(model)
    with pytest.raises(CheckpointError, match=named) as caught:
        load_initial_weights(model, path)
    assert same(weights(model), before)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".params"])
def test_another_width_is_named_with_its_option(
    tensors: dict[str, Tensor], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"m{suffix}"
    if suffix == ".pth":
        torch.save(tensors, path)
    else:
        path.write_bytes(params_bytes(mxnet_arrays(tensors)))
    with pytest.raises(CheckpointError, match="width 2, but the network has width 1: give `width`"):
        load_initial_weights(new_model(replace(CONFIG, width=1), seed=0), path)


def test_the_tiny_file_of_mxnet_is_of_another_width(golden_dir: Path) -> None:
    with pytest.raises(CheckpointError, match="give `width` 4 "):
        load_initial_weights(new_model(CONFIG, seed=0), golden_dir / "mxnet" / "tiny.params")
    model = new_model(replace(CONFIG, width=4), seed=0)
    named = re.escape("b2.bn_branch2b1.weight is [4], not [8]")
    with pytest.raises(CheckpointError, match=rf"{named}.* and \d+ more"):
        load_initial_weights(model, golden_dir / "mxnet" / "tiny.params")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.params", b"", "not a whole MXNet .params file"),
        ("a.params", b"hello, this is no such file at all", "does not begin like one"),
        ("a.pth", b"hello", "not a plain PyTorch state dict"),
        ("a.safetensors", b"", "not a readable safetensors"),
        ("a.onnx", b"x", r"neither .params \(MXNet\), .pth nor .safetensors"),
    ],
)
def test_files_of_another_kind_are_refused(
    tmp_path: Path, name: str, content: bytes, named: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=named):
        load_initial_weights(new_model(CONFIG, seed=0), tmp_path / name)


def test_missing_files_folders_and_unnamed_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({1: torch.ones(1)}, tmp_path / "numbered.pth")
    for name, named in [
        ("none.params", "No such file"),
        ("", "is no file"),
        ("numbered.pth", "not a state dict of tensors"),
    ]:
        with pytest.raises(CheckpointError, match=named):
            load_initial_weights(new_model(CONFIG, seed=0), tmp_path / name)
