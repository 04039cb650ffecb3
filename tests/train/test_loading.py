"""Loading: the same batches however they are loaded, and clean ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sshr_deploy.errors import InputError, TrainingError, UsageError
from sshr_deploy.runtime.patches import read_image, resize_to_patch
from sshr_deploy.train.augmentation import augment
from sshr_deploy.train.dataset import TrainingPatch
from sshr_deploy.train.loading import (
    Batch,
    EpochBatches,
    PatchLoader,
    default_workers,
    open_loader,
)
from sshr_deploy.train.recipe import Augmentation

HOW = Augmentation(flips=True, rotations=True, stain_jitter=0.1)
COUNT, BATCH, SEED = 11, 4, 42


@pytest.fixture
def patches(tmp_path: Path) -> list[TrainingPatch]:
    rng = np.random.default_rng(5)
    found = []
    for k in range(COUNT):
        side = (200, 260) if k == 3 else (224, 224)
        path = tmp_path / f"{k}.png"
        Image.fromarray(rng.integers(0, 256, (*side, 3), np.uint8)).save(path)
        found.append(TrainingPatch(path, (k % 2, 1, k // 6)))
    return found


@pytest.fixture(autouse=True)
def _no_workers_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def _batches(rank: int = 0, world: int = 1, seed: int = SEED) -> EpochBatches:
    return EpochBatches(COUNT, BATCH, seed, rank, world)


def _open(
    patches: list[TrainingPatch], batches: EpochBatches, workers: int = 0, seed: int = SEED
) -> PatchLoader:
    return open_loader(patches, batches, HOW, seed, workers=workers, pin_memory=False)


def _epoch(loader: PatchLoader, batches: EpochBatches, epoch: int, first: int = 0) -> list[Batch]:
    batches.set_position(epoch, first)
    return list(loader)


def _equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(x, y)
        for a, b in zip(first, second, strict=True)
        for x, y in zip(a, b, strict=True)
    )


def test_an_epoch_takes_every_patch_at_most_once_and_drops_the_rest() -> None:
    batches = EpochBatches(134, 20, SEED)
    orders = []
    for epoch in range(5):
        batches.set_position(epoch)
        assert len(batches) == batches.steps == 6
        steps = list(batches)
        assert [len(step) for step in steps] == [20] * 6
        keys = [key for step in steps for key in step]
        assert {key[0] for key in keys} == {epoch}
        order = [key[1] for key in keys]
        assert len(set(order)) == 120
        assert set(order) <= set(range(134))
        orders.append(order)
        assert list(batches) == steps
    assert len({tuple(order) for order in orders}) == 5
    assert set().union(*orders) == set(range(134))  # whoever is left out changes
    assert list(EpochBatches(134, 20, SEED + 1)) != list(EpochBatches(134, 20, SEED))


def test_a_resumed_epoch_goes_on_where_it_stopped() -> None:
    batches = EpochBatches(30, 4, SEED)
    batches.set_position(3)
    whole = list(batches)
    for first_step in range(8):
        batches.set_position(3, first_step)
        assert len(batches) == 7 - first_step
        assert list(batches) == whole[first_step:]


def test_a_new_position_leaves_a_running_iteration_alone() -> None:
    batches = _batches()
    whole = list(batches)
    running = iter(batches)
    batches.set_position(1)
    assert list(running) == whole


@pytest.mark.parametrize("world", [2, 4])
def test_the_shares_of_all_processes_are_the_global_batches(world: int) -> None:
    single = _batches()
    shares = [_batches(rank, world) for rank in range(world)]
    for each in (single, *shares):
        each.set_position(2, 1)
    for step, parts in zip(single, zip(*shares, strict=True), strict=True):
        assert [len(part) for part in parts] == [BATCH // world] * world
        assert [key for part in parts for key in part] == step


def test_a_batch_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(UsageError, match=r"3 training patches are fewer than the .*; lower"):
        EpochBatches(3, 4, SEED)
    with pytest.raises(UsageError, match="batch of 20 does not divide among 3 processes"):
        EpochBatches(100, 20, SEED, 0, 3)


def test_batches_hold_the_pixels_and_labels_of_their_patches(
    patches: list[TrainingPatch],
) -> None:
    batches = _batches()
    with open_loader(
        patches, batches, Augmentation(flips=False), SEED, workers=0, pin_memory=False
    ) as loader:
        found = list(loader)
    assert [b.indices.tolist() for b in found] == [[k for _, k in step] for step in batches]
    for batch in found:
        assert (batch.rgb.shape, batch.rgb.dtype) == ((BATCH, 224, 224, 3), torch.uint8)
        assert (batch.labels.dtype, batch.indices.dtype) == (torch.float32, torch.int64)
        for rgb, labels, index in zip(*batch, strict=True):
            patch = patches[int(index)]
            assert labels.tolist() == list(patch.labels)
            expected = read_image(patch.path)
            if index == 3:
                expected = resize_to_patch(expected)
            assert np.array_equal(rgb.numpy(), expected)


def test_pixels_depend_on_seed_epoch_and_patch(patches: list[TrainingPatch]) -> None:
    def pixels(epoch: int, seed: int) -> dict[int, bytes]:
        batches = EpochBatches(COUNT, 1, 0)
        with _open(patches, batches, seed=seed) as loader:
            return {int(b.indices): b.rgb.numpy().tobytes() for b in _epoch(loader, batches, epoch)}

    first = pixels(0, 42)
    assert pixels(0, 42) == first
    for other in (pixels(1, 42), pixels(0, 43)):
        assert all(other[k] != first[k] for k in first)
    rng = np.random.default_rng(np.random.SeedSequence(42, spawn_key=(0, 5)))
    assert first[5] == augment(read_image(patches[5].path), HOW, rng).tobytes()


def test_two_processes_load_what_one_does(patches: list[TrainingPatch]) -> None:
    def load(rank: int, world: int) -> list[Batch]:
        batches = _batches(rank, world)
        with _open(patches, batches) as loader:
            return _epoch(loader, batches, 1)

    halves = zip(load(0, 2), load(1, 2), strict=True)
    joined = [Batch(*(torch.cat(pair) for pair in zip(*both, strict=True))) for both in halves]
    assert _equal(joined, load(0, 1))


def test_workers_change_nothing_and_leave_with_the_loader(patches: list[TrainingPatch]) -> None:
    plain, busy = _batches(), _batches()
    state = torch.get_rng_state()
    with _open(patches, plain) as one, _open(patches, busy, workers=2) as many:
        assert _equal(_epoch(many, busy, 0), _epoch(one, plain, 0))
        workers = {child.pid for child in multiprocessing.active_children()}
        assert len(workers) == 2
        busy.set_position(1)
        next(iter(many))  # an epoch that is left in its middle
        assert _equal(_epoch(many, busy, 1, 1), _epoch(one, plain, 1)[1:])
        assert {child.pid for child in multiprocessing.active_children()} == workers

        patches[int(_epoch(one, plain, 2)[1].indices[0])].path.write_bytes(b"gone bad")
        with pytest.raises(InputError, match="cannot be read as a PNG or JPEG") as caught:
            _epoch(many, busy, 2)
        assert "\n" not in str(caught.value)
        assert "Traceback" not in str(caught.value)
        many.close()
        assert multiprocessing.active_children() == []
        many.close()
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(many))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_worker_that_is_killed_is_one_line(patches: list[TrainingPatch]) -> None:
    batches = _batches()
    with _open(patches, batches, workers=1) as loader:
        _epoch(loader, batches, 0)
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)  # not for workers
        assert len(_epoch(loader, batches, 1)) == batches.steps
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(0.1)  # nothing is raised until a batch is asked for
        worker.join()
        with pytest.raises(TrainingError, match="fewer `workers` need less memory") as caught:
            _epoch(loader, batches, 2)
        assert "\n" not in str(caught.value)


def test_an_image_that_goes_bad_is_named_without_workers_too(
    patches: list[TrainingPatch],
) -> None:
    batches = _batches()
    bad = patches[next(iter(batches))[1][1]].path
    bad.unlink()
    with _open(patches, batches) as loader, pytest.raises(InputError) as caught:
        list(loader)
    assert str(bad) in str(caught.value)


def test_default_workers_leave_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_cores(cores: int, device: str, processes: int = 1) -> int:
        monkeypatch.setattr("sshr_deploy.train.loading.usable_cores", lambda: cores)
        return default_workers(device, processes)

    assert [with_cores(c, "cuda") for c in (1, 2, 4, 16, 64)] == [1, 1, 3, 8, 8]
    assert with_cores(16, "cuda", 4) == 3
    assert [with_cores(c, "cpu") for c in (1, 2, 7, 8, 64)] == [0, 0, 0, 1, 2]
    monkeypatch.undo()
    assert default_workers("cuda") >= 1
