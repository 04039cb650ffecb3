from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sshr_deploy.errors import CheckpointError, UsageError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.checkpoint import (
    CONFIG_KEY,
    PROFILE_KEY,
    check_labels,
    load_checkpoint,
    save_checkpoint,
)
from sshr_deploy.profiles import Profile, load_profile


@pytest.fixture(scope="module")
def model() -> SSHR:
    torch.manual_seed(0)
    return SSHR(ModelConfig(num_classes=3, width=1)).eval()


def _equal(a: SSHR, b: SSHR) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


def test_safetensors_round_trip_keeps_weights_and_config(model: SSHR, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(model, path, metadata={"trained_on": "x"})
    loaded = load_checkpoint(path)
    assert loaded.config == model.config
    assert _equal(loaded, model)
    assert not loaded.training
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_pth_of_the_authors_loads_with_shapes_from_its_tensors(model: SSHR, tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(model.state_dict(), path)
    loaded = load_checkpoint(path)
    assert loaded.config == ModelConfig(num_classes=3, width=1)
    assert _equal(loaded, model)


def test_pth_from_before_torch_1_6_loads(model: SSHR, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    assert _equal(load_checkpoint(path), model)


@pytest.mark.parametrize(
    "config", ['{"width": 8.5, "num_classes": 3}', '{"width": "8"}', "[1]", "[" * 99999]
)
def test_a_wrong_config_in_the_header_is_refused(model: SSHR, tmp_path: Path, config: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file(model.state_dict(), path, metadata={CONFIG_KEY: config})
    with pytest.raises(CheckpointError, match="unusable model config"):
        load_checkpoint(path)


def test_half_precision_weights_become_fp32(model: SSHR, tmp_path: Path) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    torch.save(half, tmp_path / "m.pth")
    loaded = load_checkpoint(tmp_path / "m.pth").state_dict()
    assert loaded["conv1a.weight"].dtype == torch.float32
    assert torch.equal(loaded["conv1a.weight"], half["conv1a.weight"].float())


def _drop(tensors: dict[str, Tensor]) -> None:
    del tensors["hfrm_28_1.gamma_veto"]


def _add(tensors: dict[str, Tensor]) -> None:
    tensors["optimizer.step"] = torch.zeros(1)


def _reshape(tensors: dict[str, Tensor]) -> None:
    tensors["ic1.weight"] = torch.zeros(3, 9, 1, 1)


def _poison(tensors: dict[str, Tensor]) -> None:
    tensors["b3.conv_branch2a.weight"][0, 0, 0, 0] = float("nan")


def _whole_numbers(tensors: dict[str, Tensor]) -> None:
    tensors["ic1.weight"] = torch.zeros(3, 8, 1, 1, dtype=torch.int32)


def _complex(tensors: dict[str, Tensor]) -> None:
    tensors["ic1.weight"] = torch.zeros(3, 8, 1, 1, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_whole_numbers, r"ic1.weight is torch.int32"),
        (_complex, r"ic1.weight is torch.complex64"),
        (_drop, "missing hfrm_28_1.gamma_veto"),
        (_add, "extra optimizer.step"),
        (_reshape, r"ic1.weight is \[3, 9, 1, 1\], not \[3, 8, 1, 1\]"),
        (_poison, "b3.conv_branch2a.weight has NaN"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tensors_that_do_not_fit_are_listed(
    model: SSHR, tmp_path: Path, spoil: Callable[[dict[str, Tensor]], None], named: str, suffix: str
) -> None:
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    spoil(tensors)
    path = tmp_path / f"m{suffix}"
    if suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    with pytest.raises(CheckpointError, match=named) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_long_list_of_problems_is_cut(model: SSHR, tmp_path: Path) -> None:
    tensors = {k: v for k, v in model.state_dict().items() if not k.startswith("b4")}
    torch.save(tensors, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"missing b4\.bn.*and \d+ more"):
        load_checkpoint(tmp_path / "m.pth")


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path("pwned").touch, ())


def test_a_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1a.weight": _Evil()}, tmp_path / "zip.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(_Evil()))
    for name in ("zip.pth", "raw.pth"):
        with pytest.raises(CheckpointError, match="not a plain PyTorch state dict"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.pth", b"", "not a plain PyTorch state dict"),
        ("a.pth", b"hello", "not a plain PyTorch state dict"),
        ("a.safetensors", b"", "not a readable safetensors"),
        ("a.safetensors", b"\xff" * 64, "not a readable safetensors"),
        ("a.onnx", b"x", "neither .safetensors nor .pth"),
    ],
)
def test_files_of_another_kind_are_refused(
    tmp_path: Path, name: str, content: bytes, named: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=named):
        load_checkpoint(tmp_path / name)


def test_a_truncated_file_is_refused(model: SSHR, tmp_path: Path) -> None:
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"m{suffix}"
        if suffix == ".pth":
            torch.save(model.state_dict(), path)
        else:
            save_checkpoint(model, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match="not a"):
            load_checkpoint(path)


def test_other_state_dicts_and_missing_files_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "nested.pth")
    for name, named in [
        ("other.pth", "not an SSHR checkpoint"),
        ("list.pth", "not a state dict"),
        ("nested.pth", "save its 'state_dict' entry"),
        ("none.pth", "No such file"),
        ("", "is no file"),
    ]:
        with pytest.raises(CheckpointError, match=named):
            load_checkpoint(tmp_path / name)


def _carrying(model: SSHR, path: Path, text: str) -> Path:
    save_checkpoint(model, path, metadata={PROFILE_KEY: text})
    return path


def test_a_checkpoint_keeps_its_class_names_unless_they_may_change(
    model: SSHR, tmp_path: Path
) -> None:
    luad, bcss, three = (load_profile(name) for name in ("luad", "bcss", "wsss4luad"))
    path = _carrying(model, tmp_path / "m.safetensors", luad.model_dump_json())
    assert check_labels(path, luad) == luad
    words = r"trained on tumour epithelium, .*but profile bcss has tumour, .*; leave `profile` out"
    with pytest.raises(UsageError, match=f"{words}, or add `relabel`"):
        check_labels(path, bcss)
    with pytest.raises(
        UsageError, match=r"leave `profile` out$"
    ):  # another count cannot be renamed
        check_labels(path, three)
    assert check_labels(path, bcss, relabel=True) == luad
    other_order = luad.model_copy(update={"classes": luad.classes[::-1]})
    with pytest.raises(UsageError, match="`relabel`"):
        check_labels(path, other_order)


def test_all_but_the_names_may_differ_and_a_checkpoint_may_carry_none(
    model: SSHR, profile: Profile, tmp_path: Path
) -> None:
    path = _carrying(model, tmp_path / "m.safetensors", profile.model_dump_json())
    changed = profile.model_copy(update={"mpp_um": 0.5, "gate_threshold": 0.4, "name": "mine"})
    assert check_labels(path, changed) == profile
    save_checkpoint(model, path)
    assert check_labels(path, profile) is None
    torch.save(model.state_dict(), tmp_path / "m.pth")
    assert check_labels(tmp_path / "m.pth", profile) is None


@pytest.mark.parametrize("text", ["no JSON", "{}"])
def test_a_profile_that_cannot_be_read_is_not_passed_over(
    model: SSHR, profile: Profile, tmp_path: Path, text: str
) -> None:
    path = _carrying(model, tmp_path / "m.safetensors", text)
    with pytest.raises(UsageError, match=r"cannot be read .*; add `relabel`"):
        check_labels(path, profile)
    assert check_labels(path, profile, relabel=True) is None
