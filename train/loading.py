"""Training patches as batches: order and pixels depend on the seed, the epoch and the patch only.

Neither the number of processes, nor that of loading workers, nor a resume changes a bit of them.

Workers are spawned, never forked: a fork would copy half of a process that holds a CUDA context and
running threads (BLAS, pinning, TensorBoard), which Python 3.12 and later warn of, and Windows has
no fork. It costs an import of torch in each worker, once a run.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError, TrainingError, UsageError
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.runtime.patches import read_image, resize_to_patch
from sshr_deploy.train.augmentation import augment
from sshr_deploy.train.dataset import TrainingPatch
from sshr_deploy.train.recipe import Augmentation

Key = tuple[int, int]
"""Epoch and index of a patch: all that its pixels depend on, beside the seed."""

_THREAD_END_S = 2.0


class Batch(NamedTuple):
    """B training patches, N classes."""

    rgb: Tensor  # uint8 [B, 224, 224, 3]
    labels: Tensor  # float32 [B, N], 0 or 1
    indices: Tensor  # int64 [B], places in the sequence of training patches


class EpochBatches(Sampler[list[Key]]):
    """Keys that each step of an epoch loads, as lists for one process.

    An epoch is one permutation of all patches, cut into global batches; the last incomplete one is
    dropped. Process `rank` of `world` takes its contiguous share of every global batch.

    Raises:
        UsageError: fewer patches than a batch, or a batch that does not divide among the processes.
    """

    def __init__(self, count: int, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if count < batch:
            raise UsageError(
                f"{count} training patches are fewer than the recipe's batch of {batch}; "
                "lower batch in the recipe"
            )
        if batch % world:
            raise UsageError(
                f"the recipe's batch of {batch} does not divide among {world} processes; "
                "change batch in the recipe or the number of processes"
            )
        self.steps = count // batch
        """Steps of a whole epoch."""
        self._count, self._batch, self._seed = count, batch, seed
        share = batch // world
        self._share = slice(rank * share, (rank + 1) * share)
        self._epoch = self._first_step = 0

    def set_position(self, epoch: int, first_step: int = 0) -> None:
        """Let the next iteration give epoch `epoch` from its step `first_step` on."""
        self._epoch, self._first_step = epoch, first_step

    def __len__(self) -> int:
        """Steps that the next iteration gives."""
        return self.steps - self._first_step

    def __iter__(self) -> Iterator[list[Key]]:
        order = _generator(self._seed, self._epoch).permutation(self._count).tolist()
        starts = range(self._first_step * self._batch, self.steps * self._batch, self._batch)
        # Not lazy: a loader looks ahead, and the position may be set while it does.
        return iter(
            [
                [(self._epoch, index) for index in order[start : start + self._batch][self._share]]
                for start in starts
            ]
        )


class PatchLoader(Closing):
    """Iterates the batches of one epoch, from the position set on its `EpochBatches`.

    Workers, where there are any, start at the first iteration, live until `close` and take no
    Ctrl-C of their own. torch's global random state is left alone.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader: DataLoader[Any] | None = loader

    def __iter__(self) -> Iterator[Batch]:
        """One epoch's batches.

        Raises:
            InputError: an image can no longer be read.
            TrainingError: a worker died.
        """
        if self._loader is None:
            raise RuntimeError("the loader is closed")
        try:
            with _quiet(), _deaf_children(), _kept_sigchld():
                batches = iter(self._loader)
            for batch in batches:
                if isinstance(batch, str):
                    raise InputError(batch)
                yield batch
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]  # a worker's traceback comes before it
            raise TrainingError(
                f"loading training patches failed: {reason}; fewer `workers` need less memory"
            ) from error

    def close(self) -> None:
        """Stop the workers, and wait until they have ended."""
        iterator = getattr(self._loader, "_iterator", None)
        self._loader = None
        if iterator is None:  # no workers, or none started
            return
        # Dropping the last reference would do, but an exception's traceback may hold one.
        iterator._shutdown_workers()
        # The threads of the queues end a moment later. One that the end of Python interrupts leaves
        # a warning of leaked semaphores on the screen.
        for queue in iterator._index_queues:
            queue._thread.join(_THREAD_END_S)


def open_loader(
    patches: Sequence[TrainingPatch],
    batches: EpochBatches,
    augmentation: Augmentation,
    seed: int,
    *,
    workers: int,
    pin_memory: bool,
) -> PatchLoader:
    """A loader of what `batches` gives: decoded, resized to 224 x 224, augmented.

    `workers` processes decode ahead, 2 batches each; with 0 the calling one does it between steps.
    `pin_memory` (for copies to a GPU that do not block) is ignored where there is no GPU.
    """
    with _quiet():
        loader: DataLoader[Any] = DataLoader(
            _Patches(patches, augmentation, seed),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory and torch.cuda.is_available(),
            worker_init_fn=_start_worker,
            multiprocessing_context=multiprocessing.get_context("spawn") if workers else None,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else each epoch takes a number from the global one
        )
    return PatchLoader(loader)


def default_workers(device_type: str, processes: int = 1) -> int:
    """How many loading workers suit a device, for each of `processes` on this machine.

    A GPU is kept busy by decoding elsewhere: one worker a core, one core left to the main process,
    8 at most (measured: about 400 patches/s a worker). On a CPU the network takes 10 to 100 times
    longer than the decoding and wants the cores itself: one worker for every 8 cores.
    """
    cores = usable_cores() // processes
    return min(8, max(1, cores - 1)) if device_type == "cuda" else min(2, cores // 8)


class _Patch(NamedTuple):
    rgb: NDArray[np.uint8]  # [224, 224, 3]
    labels: tuple[int, ...]
    place: int


class _Patches(Dataset[_Patch | str]):
    """Item (epoch, index): the augmented patch, or why it cannot be read."""

    def __init__(
        self, patches: Sequence[TrainingPatch], augmentation: Augmentation, seed: int
    ) -> None:
        self._patches, self._augmentation, self._seed = tuple(patches), augmentation, seed

    def __getitem__(self, key: Key) -> _Patch | str:
        epoch, index = key
        patch = self._patches[index]
        try:
            rgb = resize_to_patch(read_image(patch.path))
        except InputError as error:  # as text: torch would wrap an exception in its traceback
            return str(error)
        rgb = augment(rgb, self._augmentation, _generator(self._seed, epoch, index))
        return _Patch(rgb, patch.labels, index)


def _collate(items: Sequence[_Patch | str]) -> Batch | str:
    """A batch, or the first of its items' problems."""
    patches = []
    for item in items:
        if isinstance(item, str):
            return item
        patches.append(item)
    return Batch(
        torch.from_numpy(np.stack([patch.rgb for patch in patches])),
        torch.tensor([patch.labels for patch in patches], dtype=torch.float32),
        torch.tensor([patch.place for patch in patches]),
    )


def _generator(seed: int, *key: int) -> np.random.Generator:
    """Streams of their own: unlike a plain tuple, spawn keys tell (epoch) from (epoch, 0)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # torch has set its own threads to one
    for number in (signal.SIGINT, signal.SIGTERM):  # the main process ends its workers
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """torch's own watch misses a main process that is killed before its workers are up."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch warns of more workers than cores, which are the caller's choice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Child processes started in the block inherit a blocked Ctrl-C; ours waits until its end.

    Without it, a Ctrl-C while they import torch prints a traceback for each. Windows has no such
    block: there the tracebacks appear, and the workers end all the same.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _kept_sigchld() -> Iterator[None]:
    """Undo torch's SIGCHLD handler, which raises in the middle of whatever the main process does.

    A worker that died is noticed all the same, within 5 seconds of waiting for its batch.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
