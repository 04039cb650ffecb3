"""What a day of slides asks of a machine, and what would have to change for half of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sshr_deploy.benchmarks.pipeline.runs import TimedRun
from sshr_deploy.benchmarks.pipeline.stages import bounds_s

_WORDS = {
    "engine": "the engine",
    "read": "reading",
    "plan": "finding the tissue",
    "finish": "labels and files",
    "cores": "the cores",
}


@dataclass(frozen=True)
class Day:
    """So many slides of one size, one after the other."""

    slides: int
    first_s: float
    """Of a slide alone."""
    further_s: float
    """Of each that follows: it is planned, and the one before is written, beside the engine."""
    bounds_s: dict[str, float]
    """For one slide, see `stages.bounds_s`."""

    @property
    def hours(self) -> float:
        """That the machine is busy."""
        return (self.first_s + (self.slides - 1) * self.further_s) / 3600

    @property
    def target_s(self) -> float:
        """For a slide, so that the hours are half as many."""
        return self.further_s / 2

    @property
    def must_be_faster(self) -> dict[str, float]:
        """What does not fit into half the time, with how many times as fast it must become."""
        times = {name: seconds / self.target_s for name, seconds in self.bounds_s.items()}
        return {n: t for n, t in sorted(times.items(), key=lambda pair: -pair[1]) if t > 1}

    @property
    def next_limit(self) -> str | None:
        """What limits a slide once that is done, of what is as it was."""
        rest = {n: s for n, s in self.bounds_s.items() if n not in self.must_be_faster}
        return max(rest, key=rest.__getitem__, default=None)

    def as_json(self) -> dict[str, Any]:
        """For a document."""
        return {
            "slides": self.slides,
            "hours": self.hours,
            "first_s": self.first_s,
            "further_s": self.further_s,
            "target_s": self.target_s,
            "bounds_s": self.bounds_s,
            "must_be_faster": self.must_be_faster,
            "next_limit": self.next_limit,
            "words": self.words(),
        }

    def words(self) -> list[str]:
        """The same in sentences."""
        lines = [
            f"{self.slides} slides a day like this: the machine is busy {self.hours:.2g} hours "
            f"({self.first_s:.3g} s for the first, {self.further_s:.3g} s for each that follows)"
        ]
        if self.hours > 24:
            lines.append(f"that is more than a day has: {-(-self.hours // 24):.0f} such machines")
        half = f"half of that is {self.target_s:.3g} s a slide"
        if not self.must_be_faster:
            return [*lines, f"{half}, and no stage takes as long: they wait for each other"]
        parts = [
            f"{_WORDS[name]} ({self.bounds_s[name]:.3g} s) {times:.2g} times as fast"
            + (", or as many times the cores" if name == "cores" else "")
            for name, times in self.must_be_faster.items()
        ]
        lines.append(f"{half}: {'; '.join(parts)}")
        if self.next_limit is not None:
            seconds = self.bounds_s[self.next_limit]
            lines.append(f"then {_WORDS[self.next_limit]} comes next, with {seconds:.3g} s")
        return lines


def day_of(
    slides: int, alone: TimedRun, row: TimedRun, *, cores: int, first_s: float, row_s: float
) -> Day:
    """A day like the slides of two runs, with the medians of their seconds.

    Args:
        slides: of the day.
        alone: the slides once; of several the mean counts.
        row: a slide several times in a row, or `alone` again where there are several slides.
        cores: of the machine.
        first_s: of `alone`.
        row_s: of `row`.
    """
    more = row.slides - alone.slides
    further_s = (row_s - first_s) / more if more else row_s / row.slides
    # Beside other work a run of several may seem shorter than its stages.
    bounds = {name: seconds / row.slides for name, seconds in bounds_s(row, cores).items()}
    further_s = max(further_s, *bounds.values())
    return Day(slides, first_s / alone.slides, further_s, bounds)
