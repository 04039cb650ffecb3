"""What a day of slides asks of a machine, and what would have to change for half of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sshr_deploy.benchmarks.pipeline.runs import TimedRun
from sshr_deploy.benchmarks.pipeline.stages import stages_of
from sshr_deploy.figures import in_digits

_WORDS = {
    "network": "the network",
    "keep": "keeping its results",
    "documents": "lists and documents",
    "engine": "the engine's thread",
    "read": "reading",
    "plan": "finding the tissue",
    "finish": "labels and files",
    "cores": "the cores",
}
_BY_THE_CLOCK = ("keep", "documents", "plan", "finish")
"""Measured in a whole run, so that waiting for a core counts: the work itself may be less."""


@dataclass(frozen=True)
class Day:
    """So many slides of one size, one after the other."""

    slides: int
    first_s: float
    """Of a slide alone."""
    further_s: float
    """Of each that follows: it is planned, and the one before is written, beside the engine."""
    engine_s: dict[str, float]
    """Of the engine's thread for one slide: network, keep and documents, one after the other."""
    others_s: dict[str, float]
    """Of what is beside it: read, plan, finish, and cores."""
    refused: str | None = None
    """Why it is not told what would halve the day."""

    @property
    def hours(self) -> float:
        """That the machine is busy."""
        return (self.first_s + (self.slides - 1) * self.further_s) / 3600

    @property
    def target_s(self) -> float:
        """For a slide, so that the hours are half as many."""
        return self.further_s / 2

    @property
    def bounds_s(self) -> dict[str, float]:
        """Of each that works beside the others: no slide takes less than the longest of them."""
        return {"engine": sum(self.engine_s.values()), **self.others_s}

    @property
    def must_be_faster(self) -> dict[str, float]:
        """What does not fit into half the time, with how many times as fast it must become.

        Of the engine's thread the network alone, the rest of it as it is ("network"); where that is
        too long itself, the whole thread ("engine").
        """
        times = {n: s / self.target_s for n, s in self.bounds_s.items() if s > self.target_s}
        network_s = self.engine_s["network"]
        left_s = self.target_s - (self.bounds_s["engine"] - network_s)
        if "engine" in times and left_s > 0:
            del times["engine"]
            times["network"] = network_s / left_s
        return dict(sorted(times.items(), key=lambda pair: -pair[1]))

    @property
    def next_limit(self) -> str | None:
        """What limits a slide once that is done, of what is as it was."""
        rest = {n: s for n, s in self.bounds_s.items() if s <= self.target_s}
        return max(rest, key=rest.__getitem__, default=None)

    def as_json(self) -> dict[str, Any]:
        """For a document."""
        told = {
            "slides": self.slides,
            "hours": self.hours,
            "first_s": self.first_s,
            "further_s": self.further_s,
            "engine_s": self.engine_s,
            "others_s": self.others_s,
            "words": self.words(),
        }
        if self.refused is not None:
            return {**told, "refused": self.refused}
        halved = {"must_be_faster": self.must_be_faster, "next_limit": self.next_limit}
        return {**told, "target_s": self.target_s, **halved}

    def words(self) -> list[str]:
        """The same in sentences."""
        hours = in_digits(self.hours, 2)
        first_s, further_s = in_digits(self.first_s), in_digits(self.further_s)
        lines = [
            f"{self.slides} slides a day like this: the machine is busy {hours} hours "
            f"({first_s} s for the first, {further_s} s for each that follows)"
        ]
        if self.hours > 24:
            lines.append(f"that is more than a day has: {-(-self.hours // 24):.0f} such machines")
        if self.refused is not None:
            return [*lines, f"what would halve that is not told: {self.refused}"]
        half = f"half of that is {in_digits(self.target_s)} s a slide"
        if not self.must_be_faster:
            return [*lines, f"{half}, and nothing takes as long: they wait for each other"]
        parts = [self._wanted(name, times) for name, times in self.must_be_faster.items()]
        lines.append(f"{half}: {'; '.join(parts)}")
        if (limit := self.next_limit) is not None:
            lines.append(f"then {_WORDS[limit]} comes next: {_time(limit, self.bounds_s[limit])}")
        return lines

    def _wanted(self, name: str, times: float) -> str:
        """How much faster one thing must become."""
        wanted = f"{in_digits(times, 2)} times as fast"
        parts = [f"{_WORDS[part]} {_time(part, s)}" for part, s in self.engine_s.items()]
        if name == "network":
            beside = " and ".join(parts[1:])
            return f"{parts[0]}, {wanted}, with {beside} on its thread as they are"
        if name == "engine":
            most = max(self.engine_s, key=self.engine_s.__getitem__)
            return (
                f"{_WORDS[name]} ({', '.join(parts)}), {wanted}: more than any network can give; "
                f"most of it is {_WORDS[most]}"
            )
        also = ", or as many times the cores" if name == "cores" else ""
        return f"{_WORDS[name]} {_time(name, self.bounds_s[name])}, {wanted}{also}"


def _time(name: str, seconds: float) -> str:
    return f"{'at most ' if name in _BY_THE_CLOCK else ''}{in_digits(seconds)} s"


def day_of(
    slides: int,
    alone: TimedRun,
    row: TimedRun,
    *,
    cores: int,
    first_s: float,
    row_s: float,
    network_s: float,
    read_s: float,
    refused: str | None = None,
) -> Day:
    """A day like the slides of two runs, with the medians of their seconds.

    Args:
        slides: of the day.
        alone: the slides once; of several the mean counts.
        row: a slide several times in a row, or `alone` again where there are several slides.
        cores: of the machine.
        first_s: of `alone`.
        row_s: of `row`.
        network_s: of the slides of `alone`, with nothing beside it.
        read_s: the same of reading them, by the threads of the runs.
        refused: see `Day`.
    """
    more = row.slides - alone.slides
    # Other work may make the longer run seem the shorter one.
    is_longer = more > 0 and row_s > first_s
    further_s = (row_s - first_s) / more if is_longer else row_s / row.slides
    work_s = {name: stage.busy_s / row.slides for name, stage in stages_of(row).items()}
    engine_s = {
        "network": network_s / alone.slides,
        "keep": work_s["keep"],
        "documents": work_s["rest"],
    }
    others_s = {
        "read": read_s / alone.slides,
        "plan": work_s["plan"],
        "finish": work_s["labels"] + work_s["write"],
        "cores": row.cpu_s / cores / row.slides,
    }
    return Day(slides, first_s / alone.slides, further_s, engine_s, others_s, refused)
