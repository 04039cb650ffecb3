"""Small TOML files: those that the package ships under a name, and those that people write."""

from __future__ import annotations

import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sshr_deploy.errors import SshrDeployError

_MAX_BYTES = 1 << 20


def shipped_names(folder: Traversable) -> list[str]:
    """Names, without `.toml`, of the files in `folder`."""
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def read_named_toml(
    name_or_path: str, folder: Traversable, noun: str, error_type: type[SshrDeployError]
) -> dict[str, Any]:
    """Content of the file that `folder` ships under a name, or of a path that ends in `.toml`.

    Raises:
        error_type: unknown name; a file that cannot be read, is no TOML, or is larger than 1 MiB.
    """
    if name_or_path.endswith(".toml"):
        return read_toml(Path(name_or_path), noun, error_type)
    known = shipped_names(folder)
    if name_or_path not in known:
        raise error_type(
            f"no {noun} named {name_or_path!r}; choose {', '.join(known)}, "
            "or give the path of a .toml file"
        )
    with resources.as_file(folder / f"{name_or_path}.toml") as path:
        return read_toml(path, noun, error_type)


def read_toml(path: Path, noun: str, error_type: type[SshrDeployError]) -> dict[str, Any]:
    """Content of a file that a person wrote, called `noun` in errors.

    Raises:
        error_type: it cannot be read, is no TOML, or is larger than 1 MiB.
    """
    try:
        if path.exists() and not path.is_file():
            raise error_type(f"{path} is not a file; give the .toml file of a {noun}")
        if path.stat().st_size > _MAX_BYTES:
            raise error_type(f"{path} is larger than 1 MiB, which no {noun} is")
        return tomllib.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise error_type(
            f"{path} cannot be read as a {noun}: it is not UTF-8 text; save it as UTF-8"
        ) from error
    except OSError as error:
        raise error_type(f"{path} cannot be read as a {noun}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise error_type(f"{path} is not valid TOML: {error}") from error
