"""Runs that write into one results folder: they share it if they do the same, else one is refused.

All is in the folder `.sharing` of the results, which is there only while runs are:

- `run-TOKEN`, one for each run, its sign of life;
- `claim-NAME`, one for each input under way, with the run that has it: others go on with the next
  input and look again later. The claim of a run that is gone is taken over;
- `lock`, held for moments: while a run enters, takes something over, or writes the table of the
  folder. Whoever finds it held waits.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sshr_deploy.atomic import partial_name, remove_abandoned
from sshr_deploy.errors import OutputError, UsageError
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.pipeline import signs_of_life
from sshr_deploy.runtime.pipeline.signs_of_life import Holder, SignOfLife, is_stale, read, who
from sshr_deploy.runtime.pipeline.terms import Terms, difference

SHARING_NAME = ".sharing"
_LOCK_NAME = "lock"
_RUN, _CLAIM = "run-", "claim-"
_LOOK_S = 0.02


class Claim(NamedTuple):
    """Outcome of a wish to do an input."""

    held_by: str | None = None
    """Who is at it; None if it is this run's."""
    taken_from: str | None = None
    """Who was at it, and gave no sign of life."""


class RunLock:
    """A run's place in a results folder; its claims are good as long as it shows life.

    For several threads; `alone` and `release` for one.
    """

    def __init__(self, out: Path, terms: Terms | None) -> None:
        """Enter; the folder must exist.

        Raises:
            UsageError: another run writes there, and does something else.
            OSError: nothing can be written there.
        """
        self._out, self._folder = out, out / SHARING_NAME
        self._holder = Holder.new(terms)
        self._company = False
        self._taker: Holder | None = None  # of this run's inputs, if it was taken for dead
        self._claims: set[Path] = set()
        path = self._run_path(self._holder)
        with self.alone():
            for holder in self._living():
                self._check_shares(holder)
                self._company = True
            signs_of_life.create(path, self._holder)
            self._sign = SignOfLife(path, self._holder, self._look_around)

    @property
    def started_utc(self) -> str:
        """When the run entered."""
        return self._holder.started_utc

    @property
    def has_company(self) -> bool:
        """Whether other runs share the folder, or did since this one entered."""
        return self._company

    def is_lost(self) -> bool:
        """Whether others took this run for dead, also where they have ended since."""
        lost = self._sign.is_lost()
        if lost and self._taker is None:
            with suppress(OSError):
                self._taker = next((holder for _, holder in self._others()), None)
        return lost

    def check(self) -> None:
        """Refuse to go on if others took this run for dead.

        That happens where it gave no sign of life for two minutes: it was suspended, or the
        folder's server was away.

        Raises:
            OutputError: others do its inputs now.
        """
        if self.is_lost():
            raise OutputError(
                f"{who(self._taker)} writes into {self._out} now in place of this run, which gave "
                f"no sign of life for more than {signs_of_life.STALE_S:.0f} s; run it again to help"
            )

    def claim(self, relative: Path) -> Claim:
        """Take the input whose results go to `relative`, unless another run is at it.

        Raises:
            OSError: the folder cannot be read or written.
        """
        path = self._claim_path(relative)
        if self._holder.terms is None or path in self._claims:
            return Claim()
        while True:
            with suppress(FileExistsError):
                signs_of_life.create(path, self._holder)
                self._claims.add(path)
                return Claim()
            holder = read(path)
            if holder is None and not path.exists():
                continue  # given up this moment
            if self._lives(path, holder):
                self._company = True
                return Claim(held_by=who(holder))
            if self._took_over(path, holder):
                return Claim(taken_from=who(holder))

    def give_up(self, relative: Path) -> None:
        """The input is done, failed, or not to be done: others may look at it."""
        path = self._claim_path(relative)
        if path in self._claims:
            self._give_up(path)

    def give_up_all(self) -> None:
        """The same for every input that is claimed still."""
        for claim in list(self._claims):
            self._give_up(claim)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder's lock, for moments; others wait.

        One that is held for long (two minutes) is not waited for any more: what it guards are
        tables that are written whole, and races of a few ms.

        Raises:
            OSError: the folder cannot be read or written.
        """
        path, holder = self._folder / _LOCK_NAME, Holder.new()
        held, watch = False, Stopwatch()
        while not held and watch.seconds() < signs_of_life.STALE_S:
            self._folder.mkdir(exist_ok=True)
            try:
                signs_of_life.create(path, holder)
                held = True
            except FileNotFoundError:  # the last run has left and removed the folder
                continue
            except FileExistsError:
                with suppress(FileNotFoundError):  # given up this moment
                    other = read(path)
                    if signs_of_life.is_abandoned(path, other):
                        signs_of_life.remove_stale(path, other)
                    else:
                        time.sleep(_LOOK_S)
        sign = SignOfLife(path, holder, lambda: None) if held else None
        try:
            yield
        finally:
            if sign is not None:
                sign.remove()

    def release(self) -> None:
        """Leave; the last one removes the folder."""
        self.give_up_all()
        self._sign.remove()
        with suppress(OSError):  # they go stale
            with self.alone():
                if not list(self._living()):
                    remove_abandoned(self._folder)
                    for path in self._folder.glob(f"{_CLAIM}*"):  # of runs that were killed
                        path.unlink()
            self._folder.rmdir()

    def _give_up(self, claim: Path) -> None:
        """Remove our claim, unless it is by now that of a run which took this one for dead."""
        self._claims.discard(claim)
        with suppress(OSError):  # it is good no longer than this run lives
            if read(claim) == self._holder:
                claim.unlink()

    def _others(self) -> Iterator[tuple[Path, Holder | None]]:
        """Signs of life of other runs, perhaps stale."""
        ours = self._run_path(self._holder)
        for path in sorted(self._folder.glob(f"{_RUN}*")):
            if path != ours:
                yield path, read(path)

    def _living(self) -> Iterator[Holder | None]:
        """Other runs that show life; the signs of those that do not are removed."""
        for path, holder in self._others():
            if is_stale(path, holder):
                signs_of_life.remove_stale(path, holder)
            else:
                yield holder

    def _look_around(self) -> None:
        self._company = self._company or any(self._others())

    def _took_over(self, claim: Path, holder: Holder | None) -> bool:
        """Put our claim in the place of a dead one; False if another run was faster."""
        with self.alone():
            if not claim.exists() or read(claim) != holder:
                return False
            if holder is not None:  # it learns of it, should it have been suspended only
                self._run_path(holder).unlink(missing_ok=True)
            ours = claim.with_name(partial_name(claim.name))
            signs_of_life.create(ours, self._holder)
            ours.replace(claim)
        self._claims.add(claim)
        return True

    def _lives(self, claim: Path, holder: Holder | None) -> bool:
        """Whether the run is there whose claim it is."""
        run = claim if holder is None else self._run_path(holder)
        return not is_stale(run, holder)

    def _check_shares(self, other: Holder | None) -> None:
        """Refuse to enter where another run does something else."""
        ours, theirs = self._holder.terms, None if other is None else other.terms
        differs = ""
        if ours is not None and theirs is not None:
            if ours == theirs:
                return
            differs = f" with another {difference(ours, theirs)}"
        raise UsageError(
            f"{who(other)} writes into {self._out}{differs}: wait for it, or choose another `out`"
        )

    def _run_path(self, holder: Holder) -> Path:
        return self._folder / f"{_RUN}{holder.token}"

    def _claim_path(self, relative: Path) -> Path:
        name = hashlib.sha256(relative.as_posix().encode("utf-8", "surrogateescape"))
        return self._folder / f"{_CLAIM}{name.hexdigest()[:32]}"


@contextmanager
def run_lock(out: Path, terms: Terms | None = None) -> Iterator[RunLock]:
    """Enter a results folder, which is made where it is missing, and leave it at the end.

    Runs of the same `terms` (see `terms_of`) share it; None shares with nobody. A run whose process
    is gone, or that gave no sign of life for two minutes (another machine, a number that another
    process has got since), does not count. Folders that were made and are still empty at the end
    are removed again.

    Raises:
        UsageError: another run writes there, or nothing can be written there.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    lock: RunLock | None = None
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"`out` {out} cannot be made a folder: {error.strerror}; choose another"
            ) from error
        try:
            lock = RunLock(out, terms)
        except OSError as error:
            raise UsageError(
                f"`out` {out} cannot take results: {error.strerror}; "
                "choose another folder, or mend its rights or space"
            ) from error
        yield lock
    finally:
        if lock is not None:
            lock.release()
        with suppress(OSError):  # one that is not empty, and so are those around it
            if lock is None:
                (out / SHARING_NAME).rmdir()
            for folder in made:
                folder.rmdir()
