"""Every error a user can meet, as a tree; each message is one line that names the fix.

    SshrDeployError
    ├── UsageError            wrong option, or an option and an input that do not fit
    ├── MissingExtraError     a package of an optional extra is not installed
    ├── ListedError           several things may be wrong, all of them listed
    │   ├── ProfileError      a profile that cannot be read or is inconsistent
    │   ├── RecipeError       a training recipe that cannot be read or is inconsistent
    │   ├── SourceError       inputs that were given and cannot be used
    │   ├── DatasetError      training or test files that cannot be used
    │   └── AdaptationError   tissue that a network is better not adapted to
    ├── TrainingError         a run that cannot go on: the loss is not finite, a resume does not fit
    ├── CheckpointError       weights that are not an SSHR checkpoint
    ├── ExportError           the exported graph could not be made or did not qualify
    ├── BundleError           a bundle that is altered, incomplete or not a bundle
    ├── SessionError          an engine that cannot be opened or run
    ├── KernelError           a GPU kernel that cannot be built, loaded or launched
    │   └── KernelArgumentError  an argument of a kernel has a wrong shape, type or place
    ├── InputError            a slide or an image that cannot be read
    │   ├── MissingMppError   a slide without a usable pixel size
    │   └── SlowSlideError    a slide that takes longer than it may
    └── OutputError           a result that cannot be written

The command line turns `InputError` into a recorded failure of one input (exit code 1) and all the
others into exit code 2, except `OutputError`, which stops a run with exit code 1.
"""

from __future__ import annotations

from collections.abc import Sequence

_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160))}


class SshrDeployError(Exception):
    """Base of all errors that are meant for a user's eyes; the text is always one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """`text` with control characters, which file names may hold, as they are written in Python."""
    return text.translate(_CONTROLS)


def first_line(error: BaseException) -> str:
    """First line of an exception's text, or its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class UsageError(SshrDeployError):
    """Wrong option, or an option and an input that do not fit."""


class MissingExtraError(SshrDeployError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'sshr-deploy[{extra}]'")
        self._package, self._extra = package, extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self._package, self._extra)


class ListedError(SshrDeployError):
    """Several things may be wrong at once.

    The text counts them and names the first; `problems` holds one line for each.
    """

    def __init__(self, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.problems = tuple(problems)


class ProfileError(ListedError):
    """A profile that cannot be read or is inconsistent."""


class RecipeError(ListedError):
    """A training recipe that cannot be read or is inconsistent."""


class SourceError(ListedError):
    """Inputs, or facts about them, that were given and cannot be used."""

    @classmethod
    def of(cls, problems: Sequence[str], where: str) -> SourceError:
        """An error of these, at least one; `where` they are."""
        others = len(problems) - 1
        more = f" (and {counted(others, 'other problem')})" if others else ""
        return cls(f"{where}: {problems[0]}{more}", problems)


class DatasetError(ListedError):
    """Training or test files that cannot be used."""


class AdaptationError(ListedError):
    """Tissue that a network is better not adapted to, by what can be told without a person."""


class TrainingError(SshrDeployError):
    """A training run that cannot go on."""


class CheckpointError(SshrDeployError):
    """Weights that are not an SSHR checkpoint."""


class ExportError(SshrDeployError):
    """The exported graph could not be made or did not qualify."""


class BundleError(SshrDeployError):
    """A bundle that is altered, incomplete or not a bundle."""


class SessionError(SshrDeployError):
    """An engine that cannot be opened or run."""


class KernelError(SshrDeployError):
    """A GPU kernel that cannot be built, loaded or launched."""


class KernelArgumentError(KernelError):
    """An argument of a kernel has a wrong shape, type or place; names it and what it should be."""


class InputError(SshrDeployError):
    """A slide or an image that cannot be read."""


class MissingMppError(InputError):
    """A slide without a usable pixel size."""


class SlowSlideError(InputError):
    """A slide that takes longer than it may; what is computed of it is left for another try."""


class OutputError(SshrDeployError):
    """A result that cannot be written."""


def counted(number: int, what: str) -> str:
    """A number of things, "1 core" or "2 cores"; `what` is one of them."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def check_count(setting: str, value: object, most: int = 1024) -> None:
    """Refuse a setting that is no whole number from 1 to `most`.

    Raises:
        UsageError: so it is.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UsageError(f"`{setting}` is {value!r}; give a whole number from 1 to {most}")
