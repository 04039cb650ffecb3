"""Settings that take one of a few names."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from sshr_deploy.errors import UsageError


class Choice(StrEnum):
    """Base of enumerations that a user chooses from by name."""

    @classmethod
    def of(cls, name: str) -> Self:
        """The member of that name.

        Raises:
            UsageError: there is none.
        """
        try:
            return cls(name)
        except ValueError:
            names = ", ".join(member.value for member in cls)
            raise UsageError(f"{name!r} is not one of {names}; choose one of these") from None
