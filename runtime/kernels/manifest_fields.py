"""Types of the fields of a kernel manifest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

POINTEES = frozenset(
    ("fp16", "bf16", "fp32", "fp64", "i1", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
)
"""Types that a pointer may point to, as Triton writes them: "*fp16"."""
SCALARS = frozenset(("i32", "i64", "u32", "u64", "fp32", "fp64"))
"""Types of the arguments that are no pointers."""

Check = tuple[Callable[[Any], bool], str]
"""Whether a value is right, and what it should be."""


def check_keys(where: str, entry: Any, wanted: Iterable[str]) -> None:
    """Check that `entry` is a JSON object with exactly the keys `wanted`.

    Raises:
        ValueError: it is not; names the key.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not an object")
    for key in wanted:
        if key not in entry:
            raise ValueError(f"{where} has no {key}")
    for key in entry:
        if key not in wanted:
            raise ValueError(f"{where} has an unknown field {key[:40]!r}")


def check_value(where: str, value: Any, check: Check) -> None:
    """Check one field.

    Raises:
        ValueError: says what it is and what it should be.
    """
    fits, wanted = check
    if not fits(value):
        raise ValueError(f"{where} is {repr(value)[:60]}; it must be {wanted}")


def check_cubin(where: str, entry: Any) -> None:
    """Check one entry of "cubins", as JSON gives it.

    Raises:
        ValueError: names the field.
    """
    check_keys(where, entry, FIELDS)
    for name, check in FIELDS.items():
        check_value(f"{where}.{name}", entry[name], check)
    if not re.fullmatch(rf"sm_{entry['sm']}[af]?", entry["arch"]):
        raise ValueError(f"{where}.arch is {entry['arch']!r}, which is not for SM {entry['sm']}")
    types = dict(entry["parameters"])
    if len(types) != len(entry["parameters"]):
        raise ValueError(f"{where}.parameters names a parameter twice")
    for name in entry["multiples_of_16"]:
        if types.get(name, "none")[0] not in "iu":
            raise ValueError(f"{where}.multiples_of_16 names {name!r}, no integer parameter")


def _matches(pattern: str) -> Callable[[Any], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _whole(low: int, high: int) -> Check:
    return (
        lambda value: type(value) is int and low <= value <= high,  # no bool
        f"a whole number from {low} to {high}",
    )


def _is_parameter(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 2 and _is_identifier(value[0])):
        return False
    kind = value[1]
    return isinstance(kind, str) and (
        kind in SCALARS or (kind.startswith("*") and kind[1:] in POINTEES)
    )


def _is_identifier(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isidentifier()


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(fits(item) for item in value)


def _mapping_to(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict) and all(_is_identifier(k) and fits(v) for k, v in value.items())
    )


_NAME: Check = (_matches(r"[\w.+-]{1,80}"), "a name of letters, digits and _ . + -")
_SHA256: Check = (_matches(r"[0-9a-f]{64}"), "a SHA-256 in hexadecimal")
_BYTES = _whole(0, 1 << 20)

SOURCES: Check = (_mapping_to(_SHA256[0]), "a SHA-256 in hexadecimal by op")
VERSION: Check = _NAME

FIELDS: Mapping[str, Check] = {
    "op": _NAME,
    "variant": _NAME,
    "sm": _whole(50, 999),
    "arch": _NAME,
    "file": (
        # No part may begin with a dot, so none is "..", and no drive, root or "\" is possible.
        _matches(r"\w[\w.+-]*(/\w[\w.+-]*)*"),
        "a path inside the manifest's folder, of letters, digits and / _ . + -",
    ),
    "sha256": _SHA256,
    "ptxas": _NAME,
    "entry": (_is_identifier, "the name of a kernel"),
    "parameters": (_list_of(_is_parameter), 'a list of pairs such as ["B", "i32"]'),
    "multiples_of_16": (_list_of(_is_identifier), "a list of parameters' names"),
    "constants": (
        _mapping_to(lambda value: type(value) in (int, bool, str)),
        "whole numbers, booleans or texts by name",
    ),
    "num_warps": _whole(1, 32),
    "num_stages": _whole(0, 64),
    "shared_bytes": _BYTES,
    "registers": _whole(0, 255),
    "stack_bytes": _BYTES,
    "spill_store_bytes": _BYTES,
    "spill_load_bytes": _BYTES,
}
"""The fields of `manifest.Cubin`, as JSON holds them."""
