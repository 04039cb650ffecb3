"""The wheels that a target needs: found by pip, completed for the target, fetched one by one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from sshr_deploy.errors import UsageError
from sshr_deploy.pack.install import PROJECT, file_hash
from sshr_deploy.pack.pip_process import NotFoundError, run_pip
from sshr_deploy.pack.targets import Target
from sshr_deploy.runtime.progress import OnStep

_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")
_OLD_MANYLINUX = {"manylinux1_": (2, 5), "manylinux2010_": (2, 12), "manylinux2014_": (2, 17)}


@dataclass(frozen=True)
class Wheel:
    """A wheel that pip chose."""

    name: str
    """Of the package, in the normal form of PEP 503."""
    version: str
    file: str
    sha256: str
    url: str
    """Where pip found it, without passwords."""


@dataclass(frozen=True)
class WheelSource:
    """Gives the wheels of one target and Python."""

    target: Target
    python: str
    """"3.11"."""
    work: Path
    """Kept between runs: wheels that are there already are not fetched again."""
    on_step: OnStep

    def resolve(self, project: Path) -> list[Wheel]:
        """Every wheel that our own wheel `project` needs with the target's extras, itself first.

        pip reads environment markers for the machine it runs on, so what only the target needs is
        looked for in the wheels' metadata and asked for by name.

        Raises:
            UsageError: pip finds no wheel for a package (named), or cannot combine them.
            OutputError: the disk is full.
        """
        extras = ",".join(self.target.extras)
        wanted = [f"{PROJECT}[{extras}] @ {project.absolute().as_uri()}"]
        while True:
            items = self._report(wanted)
            unmet = _unmet(items, self.target, self.python)
            if not unmet:
                wheels = sorted((_wheel(item) for item in items), key=lambda wheel: wheel.name)
                return sorted(wheels, key=lambda wheel: wheel.name != PROJECT)
            wanted += unmet

    def fetch(self, wheel: Wheel) -> Path:
        """The wheel's file in the work folder, its hash checked.

        Raises:
            UsageError: pip cannot fetch it, or gives another file.
            OutputError: the disk is full.
        """
        folder = self.work / "wheels"
        path = folder / wheel.file
        if path.is_file() and file_hash(path) == wheel.sha256:
            return path
        path.unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        if wheel.url.startswith("file:"):
            shutil.copyfile(url2pathname(urlsplit(wheel.url).path), path)
        else:
            self._download(wheel, folder)
        if not path.is_file() or file_hash(path) != wheel.sha256:
            raise UsageError(
                f"{wheel.file} is not the file that pip chose; run the same command again"
            )
        return path

    def _download(self, wheel: Wheel, folder: Path) -> None:
        """By name, not by address: the report leaves out passwords of private indexes."""
        exactly = self.work / "requirement.txt"
        exactly.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", "utf-8")
        asked = ["--no-deps", "--require-hashes", "--requirement", str(exactly)]
        what = f"{wheel.name} {wheel.version}"
        run_pip(["download", *self._options, "--dest", str(folder), *asked], what, self.work)

    @property
    def _options(self) -> list[str]:
        """For this target and Python, wheels alone."""
        tags = [word for tag in self.target.on.tags for word in ("--platform", tag)]
        abi = f"cp{self.python.replace('.', '')}"
        kind = ["--python-version", self.python, "--implementation", "cp", "--abi", abi]
        return ["--only-binary=:all:", *tags, *kind, "--find-links", str(self._built)]

    @property
    def _built(self) -> Path:
        """Wheels made of packages that are published as source only."""
        folder = self.work / "built"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _report(self, wanted: list[str]) -> list[dict[str, Any]]:
        """The packages that pip would install for `wanted`, as its report lists them."""
        report = self.work / "report.json"
        options = ["--dry-run", "--ignore-installed", "--no-user", "--report", str(report)]
        options += ["--target", str(self.work / "nothing"), *self._options]
        what = f"{self.target.name}, Python {self.python}"
        while True:
            try:
                run_pip(["install", *options, *wanted], what, self.work)
                break
            except NotFoundError as error:
                self._build(error)
        items: list[dict[str, Any]] = json.loads(report.read_text("utf-8"))["install"]
        return items

    def _build(self, error: NotFoundError) -> None:
        """Make the wheel that pip did not find, if it is known to be published as source only."""
        requirement = Requirement(error.requirement)
        name = canonicalize_name(requirement.name)
        there = {parse_wheel_filename(path.name)[0] for path in self._built.glob("*.whl")}
        if name not in self.target.source_only or name in there:
            raise UsageError(f"{error}; {self.target.hint or _ADVICE.format(name)}") from error
        self.on_step(f"building {name}, which is published as source only")
        asked = ["--no-deps", "--wheel-dir", str(self._built), f"{name}{requirement.specifier}"]
        run_pip(["wheel", *asked], f"the source of {name}", self.work)
        for path in self._built.glob("*.whl"):
            if not path.name.endswith("-none-any.whl"):
                path.unlink()
                raise UsageError(f"{path.name} suits this machine alone; {_ADVICE.format(name)}")


_ADVICE = (
    "if it is published as source only, build it on a machine like the workstation with `pip wheel "
    "{}` and name the folder of the wheel in PIP_FIND_LINKS"
)


def glibc_of(files: list[str]) -> str:
    """The oldest glibc that all wheels of Linux run on, "2.28"; "" where none needs any."""
    needed = (0, 0)
    for file in files:
        platforms = [tag.platform for tag in parse_wheel_filename(file)[3]]
        versions = [found for tag in platforms if (found := _glibc(tag))]
        needed = max(needed, min(versions, default=(0, 0)))
    return ".".join(map(str, needed)) if any(needed) else ""


def _glibc(platform_tag: str) -> tuple[int, int] | None:
    named = _MANYLINUX.match(platform_tag)
    if named:
        return int(named[1]), int(named[2])
    return next((v for old, v in _OLD_MANYLINUX.items() if platform_tag.startswith(old)), None)


def _wheel(item: Mapping[str, Any]) -> Wheel:
    source = item["download_info"]
    file = unquote(urlsplit(source["url"]).path).rpartition("/")[2]
    name = canonicalize_name(item["metadata"]["name"])
    digest = source["archive_info"]["hashes"]["sha256"]
    return Wheel(name, item["metadata"]["version"], file, digest, source["url"])


def _unmet(items: list[dict[str, Any]], target: Target, python: str) -> list[str]:
    """Requirements that hold on the target and that nothing in `items` meets."""
    found = {canonicalize_name(item["metadata"]["name"]): item["metadata"] for item in items}
    version = {"python_version": python, "python_full_version": f"{python}.0"}
    environment = {"implementation_name": "cpython", **version, **target.on.markers}
    queue, seen = [(canonicalize_name(PROJECT), frozenset(target.extras))], set()
    unmet = []
    while queue:
        name, extras = queue.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for text in found[name].get("requires_dist", []):
            requirement = Requirement(text)
            if requirement.marker and not any(
                requirement.marker.evaluate({**environment, "extra": extra})
                for extra in extras or {""}
            ):
                continue
            needed = canonicalize_name(requirement.name)
            if needed in found:
                queue.append((needed, frozenset(requirement.extras)))
            else:
                requirement.marker = None
                unmet.append(str(requirement))
    return unmet
