"""SSHR checkpoints: the authors' `.pth`, and safetensors with the model config inside.

Nothing here unpickles objects: `.pth` files are read with `weights_only=True`.
"""

from __future__ import annotations

import json
import pickle
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sshr_deploy.atomic import atomic_path
from sshr_deploy.errors import CheckpointError, ProfileError, UsageError, first_line
from sshr_deploy.model.batch_norms import MOMENTS_PREFIX
from sshr_deploy.model.config import ModelConfig
from sshr_deploy.model.sshr import SSHR
from sshr_deploy.profiles import Profile, profile_from

CONFIG_KEY = "sshr_config"
"""Key of the JSON model config in the metadata of a safetensors file."""
PROFILE_KEY = "profile"
"""Key of the JSON profile there."""
POSITION_KEY = "position"
"""Key there of how far a training run was."""
RESUME_PREFIX = "resume/"
"""Names of tensors that a training run needs to go on, and nobody else."""
ORIGINAL_PREFIX = "original/"
"""Names of statistics of batch norms as training left them, where they were adapted since."""

_ASIDE = (RESUME_PREFIX, ORIGINAL_PREFIX, MOMENTS_PREFIX)
"""Beginnings of names of tensors that the network does not compute with."""
_LISTED_PROBLEMS = 8
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def load_checkpoint(path: Path) -> SSHR:
    """Read a checkpoint into a network in evaluation mode, FP32, on the CPU.

    `path` is a `.safetensors` file written by `save_checkpoint`, or a `.pth` state dict with the
    authors' tensor names. Width and class count are read from the shapes.

    Raises:
        CheckpointError: unreadable file; missing, extra or misshapen tensors (listed); a tensor
            with NaN or infinite values.
    """
    tensors, config = _read(path)
    config = config or _config_from_shapes(path, tensors)
    with torch.device("meta"):
        model = SSHR(config)
    problems = _problems(model.state_dict(), tensors)
    if problems:
        more = len(problems) - _LISTED_PROBLEMS
        listed = "; ".join(problems[:_LISTED_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
        raise CheckpointError(f"{path} does not fit SSHR with {_describe(config)}: {listed}")
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, assign=True
    )
    return model.eval()


def read_header(path: Path) -> dict[str, str]:
    """Fields of a checkpoint's header; empty for other formats than safetensors.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if path.suffix.lower() != ".safetensors":
        return {}
    with _safetensors(path) as file:
        return file.metadata() or {}


def read_profile(path: Path) -> Profile:
    """The profile that `sshr-deploy train` puts into a checkpoint's header.

    Raises:
        UsageError: there is none.
        CheckpointError: the file cannot be read, or its profile is no JSON.
        ProfileError: the profile is not valid.
    """
    carried = carried_profile(path)
    if carried is None:
        raise UsageError(f"{path} does not say which classes it has; give `profile`")
    return carried


def carried_profile(path: Path) -> Profile | None:
    """The same; None where the checkpoint has none, as those of the authors.

    Raises:
        CheckpointError: the file cannot be read, or its profile is no JSON.
        ProfileError: the profile is not valid.
    """
    text = read_header(path).get(PROFILE_KEY)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} holds an unusable profile; give `profile`") from error
    return profile_from(content, f"profile in {path}")


def check_labels(path: Path, profile: Profile, *, relabel: bool = False) -> Profile | None:
    """Refuse to give the classes of a checkpoint other names, unless `relabel` wants that.

    Scale, gate, weights and colours of `profile` may differ from those the checkpoint carries.

    Returns:
        The profile that it carries; None where it has none, or none that can be read.

    Raises:
        UsageError: the names differ, or cannot be compared.
        CheckpointError: the file cannot be read.
    """
    read_header(path)  # whose own errors are not about labels
    try:
        carried = carried_profile(path)
    except (CheckpointError, ProfileError) as error:
        if relabel:
            return None
        raise UsageError(
            f"{path} has a profile that cannot be read ({error}); add `relabel` to take the "
            f"classes of profile {profile.name}"
        ) from error
    if relabel or carried is None or carried.class_names == profile.class_names:
        return carried
    fix = "leave `profile` out"
    if carried.num_classes == profile.num_classes:
        fix += ", or add `relabel` to rename the classes"
    raise UsageError(
        f"{path} was trained on {', '.join(carried.class_names)} (profile {carried.name}), but "
        f"profile {profile.name} has {', '.join(profile.class_names)}; {fix}"
    )


def save_checkpoint(
    model: SSHR,
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    aside: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the weights as safetensors with the model config (and `metadata`) in the header.

    `aside` is what else the file keeps: its names begin with `RESUME_PREFIX`, `ORIGINAL_PREFIX` or
    `MOMENTS_PREFIX`, and `load_checkpoint` leaves it out. The file appears whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    header = {**(metadata or {}), CONFIG_KEY: json.dumps(asdict(model.config))}
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in {**model.state_dict(), **(aside or {})}.items()
    }
    with atomic_path(path) as partial:
        # Not save_file: it makes files that only their owner can read.
        partial.write_bytes(save(tensors, metadata=header))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.pth` or `.pt` file, of any network and not changed.

    Those that `save_checkpoint` kept aside are left out.

    Raises:
        CheckpointError: unreadable file, another format, or a `.pth` that holds more than tensors.
    """
    return _read(path)[0]


def read_aside(path: Path, prefix: str) -> dict[str, Tensor]:
    """Tensors that `save_checkpoint` kept aside under names that begin with `prefix`.

    Empty for other formats than safetensors.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if path.suffix.lower() != ".safetensors":
        return {}
    with _safetensors(path) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}


def require_file(path: Path) -> None:
    """Refuse what is no regular file before anything opens it.

    Raises:
        CheckpointError: `path` does not exist, or is a folder, a pipe or a device.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(f"{path} is no file; give the file of weights itself")
    except OSError as error:
        reason = error.strerror
        raise CheckpointError(f"{path} cannot be read: {reason}; check the path") from error


def why_unusable(expected: Tensor, found: Tensor) -> str | None:
    """Why `found` cannot take the place of `expected`, shapes aside; None if it can."""
    allowed = _FLOATS if expected.is_floating_point() else (torch.int64,)
    if found.dtype not in allowed or found.layout is not torch.strided or found.is_meta:
        return f"is {found.dtype} {found.layout}, not a dense tensor of {expected.dtype}"
    if not torch.isfinite(found.to(expected.dtype)).all():  # a float64 may be too large for it
        return "has NaN or infinite values"
    return None


def _read(path: Path) -> tuple[dict[str, Tensor], ModelConfig | None]:
    require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _read_safetensors(path)
    if suffix in {".pth", ".pt"}:
        return _read_pth(path), None
    raise CheckpointError(f"{path} is neither .safetensors nor .pth; convert it to one of them")


@contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], ModelConfig | None]:
    with _safetensors(path) as file:
        header = (file.metadata() or {}).get(CONFIG_KEY)
        names = [name for name in file.keys() if not name.startswith(_ASIDE)]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
    if header is None:
        return tensors, None
    try:
        return tensors, ModelConfig(**json.loads(header))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} holds an unusable model config: {error}") from error


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tensors, which are refused below
            try:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # files from before torch 1.6 cannot be mapped
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler raises nearly anything
        reason = first_line(error)
        if isinstance(error, pickle.UnpicklingError):  # PyTorch's own text advises unsafe loading
            reason = "it holds more than tensors, or is no such file"
        raise CheckpointError(
            f"{path} is not a plain PyTorch state dict ({reason}); save it with "
            "torch.save(model.state_dict(), ...)"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        raise CheckpointError(
            f"{path} holds a training state; save its 'state_dict' entry alone with torch.save"
        )
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    ):
        raise CheckpointError(
            f"{path} is not a state dict of tensors; "
            "save it with torch.save(model.state_dict(), ...)"
        )
    return content


def _config_from_shapes(path: Path, tensors: Mapping[str, Tensor]) -> ModelConfig:
    first, last = tensors.get("conv1a.weight"), tensors.get("fc8.weight")
    if first is None or last is None or first.dim() != 4 or last.dim() != 4:
        raise CheckpointError(
            f"{path} is not an SSHR checkpoint: it has no 4-D conv1a.weight and fc8.weight "
            f"(it holds {len(tensors)} tensors)"
        )
    try:
        return ModelConfig(num_classes=last.shape[0], width=first.shape[0])
    except ValueError as error:
        raise CheckpointError(f"{path} is not an SSHR checkpoint: {error}") from error


def _problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = [f"missing {name}" for name in expected if name not in found]
    extra = [f"extra {name}" for name in found if name not in expected]
    common = [(name, expected[name], found[name]) for name in expected if name in found]
    misshapen = [
        f"{name} is {list(f.shape)}, not {list(e.shape)}"
        for name, e, f in common
        if e.shape != f.shape
    ]
    unusable = [
        f"{name} {reason}" for name, e, f in common if (reason := why_unusable(e, f)) is not None
    ]
    return missing + extra + misshapen + unusable


def _describe(config: ModelConfig) -> str:
    return f"width {config.width} and {config.num_classes} classes"
