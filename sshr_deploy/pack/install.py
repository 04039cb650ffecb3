"""Check the kit that this file lies in, and install it. Needs Python alone, no internet.

    python3 install.py verify
    python3 install.py [--venv DIR]

Any Python from 3.8 reads this file, so that a wrong one is told which it should be. `sshr-deploy
pack` writes kits and `sshr-deploy pack --verify` checks them, with the functions below; it is one
file because a kit holds it alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

PROJECT = "sshr-deploy"
SCHEMA = 1
KIT_NAME = "kit.json"
SUMS_NAME = "SHA256SUMS"
WHEELS = "wheels"
BUNDLE = "bundle"

_CHUNK_BYTES = 1 << 20
_MAX_KIT_BYTES = 16 << 20
_BEGUN = "sshr-deploy-kit.unfinished"
_DONE = "sshr-deploy-kit.installed"
_COPY_AGAIN = "copy the kit again, or have it packed again"
_FIELDS = {
    "kit_schema": int,
    "target": str,
    "python": str,
    "system": str,
    "machine": str,
    "glibc": str,
    "extras": list,
    "created_utc": str,
    "packed_with": dict,
    "packages": list,
    "files": list,
}
_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"[A-Za-z0-9.!+_]+"


class KitError(Exception):
    """A problem of the kit or of this machine, and what to do, in one sentence."""


def is_safe(name: object) -> bool:
    """Whether `name` is a relative path with "/", plain on every system, inside its folder."""
    if not isinstance(name, str) or not name.isprintable() or re.search(r'[\\:*?"<>|]', name):
        return False
    pure = PurePosixPath(name)
    return bool(pure.parts) and str(pure) == name and name[0] != "/" and ".." not in pure.parts


def self_hash(kit: dict[str, Any]) -> str:
    """SHA-256 of a kit's description without its field `self_sha256`."""
    canonical = json.dumps(kit, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def chunks(path: Path) -> Iterator[bytes]:
    """Content of a file in pieces of at most 1 MiB."""
    with path.open("rb") as file:
        chunk = file.read(_CHUNK_BYTES)
        while chunk:
            yield chunk
            chunk = file.read(_CHUNK_BYTES)


def stored(kit: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries of the files on the disk beside `kit.json`; of a split file, those of its parts."""
    return [part for entry in kit["files"] for part in entry["parts"] or [entry]]


def sums_text(kit: dict[str, Any], kit_sha256: str) -> str:
    """Content of `SHA256SUMS`, for `sha256sum -c`; `kit_sha256` is that of the file `kit.json`."""
    rows = [(KIT_NAME, kit_sha256), *((part["name"], part["sha256"]) for part in stored(kit))]
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(rows))


def read_kit(folder: Path) -> dict[str, Any]:
    """The description of the kit in `folder`, every field checked.

    Raises:
        KitError: there is none, or it is truncated, changed, of another schema, or names a file
            outside the kit.
    """
    path = folder / KIT_NAME
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("it is not a regular file")
        if facts.st_size > _MAX_KIT_BYTES:
            raise ValueError("it is larger than any kit's")
        kit: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise KitError(f"{folder} has no {KIT_NAME}, so it is no kit; {_COPY_AGAIN}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise KitError(f"{KIT_NAME} cannot be read ({error}); {_COPY_AGAIN}") from error
    schema = kit.get("kit_schema") if isinstance(kit, dict) else None
    if schema != SCHEMA:
        raise KitError(
            f"{KIT_NAME} has schema {str(schema)[:20]} and this program reads {SCHEMA}; run the "
            "install.py of that kit, or have it packed again"
        )
    if kit.pop("self_sha256", None) != self_hash(kit):
        raise KitError(f"{KIT_NAME} was changed after the kit was packed; {_COPY_AGAIN}")
    try:
        _check_fields(kit)
    except (ValueError, TypeError, KeyError) as error:
        raise KitError(f"{KIT_NAME} is not valid: {error}; have the kit packed again") from error
    return kit


def find_problems(folder: Path) -> list[str]:
    """Every difference between the kit in `folder` and its description, a line each.

    Missing, changed, unreadable and extra files; [] where there is none.
    """
    try:
        kit = read_kit(folder)
    except KitError as error:
        return [str(error)]
    problems: list[str] = []
    for entry in kit["files"]:
        joined = hashlib.sha256()
        found = [_problem(folder, part, joined) for part in entry["parts"] or [entry]]
        if not any(found) and joined.hexdigest() != entry["sha256"]:
            found.append(f"changed: the parts of {entry['name']} do not give that file")
        problems += filter(None, found)
    sums = sums_text(kit, file_hash(folder / KIT_NAME)).encode()
    whole = {"name": SUMS_NAME, "bytes": len(sums), "sha256": hashlib.sha256(sums).hexdigest()}
    problems += filter(None, [_problem(folder, whole, hashlib.sha256())])
    return problems + extra_files(
        folder, {KIT_NAME, SUMS_NAME, *(part["name"] for part in stored(kit))}
    )


def extra_files(folder: Path, names: set[str]) -> list[str]:
    """A line for all that lies in `folder` besides `names`, links and unreadable folders too."""
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    found: list[str] = []

    def unreadable(error: OSError) -> None:
        found.append(f"unreadable: {error.filename} ({error.strerror})")

    for root, below, files in os.walk(str(folder), onerror=unreadable):
        here = PurePosixPath(Path(root).relative_to(folder).as_posix())
        for name in sorted(below):
            if str(here / name) not in folders or Path(root, name).is_symlink():
                found.append(f"extra: {here / name}/")
                below.remove(name)
        found += [
            f"extra: {here / name}" for name in sorted(files) if str(here / name) not in names
        ]
    return found


def check_machine(kit: dict[str, Any]) -> None:
    """Refuse a Python or a system that the kit is not for.

    Raises:
        KitError: with both named.
    """
    wanted, here = kit["python"], ".".join(map(str, sys.version_info[:2]))
    if here != wanted or platform.python_implementation() != "CPython":
        raise KitError(
            f"the kit is for CPython {wanted} and this is {platform.python_implementation()} "
            f"{here}; install Python {wanted} and run python{wanted} install.py, or have a kit "
            "packed for another version with --python"
        )
    system, machine = platform.system(), platform.machine()
    bits = 64 if sys.maxsize > 1 << 32 else 32
    if (system, machine, bits) != (kit["system"], kit["machine"], 64):
        raise KitError(
            f"the kit is for {kit['system']} on {kit['machine']} and this is {system} on "
            f"{machine}, {bits} bit; have it packed for this --target"
        )
    library, version = platform.libc_ver() if kit["glibc"] else ("", "")
    if kit["glibc"] and (library != "glibc" or _numbers(version) < _numbers(kit["glibc"])):
        raise KitError(
            f"the kit needs glibc {kit['glibc']} or newer and this system has "
            f"{library or 'another C library'} {version}; install it on a newer Linux"
        )


def verify(folder: Path) -> int:
    """List every difference on stderr; 0 if there is none, else 1."""
    problems = find_problems(folder)
    for problem in problems:
        _say(problem)
    if problems:
        _say(f"{folder} is not what was packed: {len(problems)} difference(s)")
        return 1
    _say(f"{folder} is whole; SHA-256 of {KIT_NAME}: {file_hash(folder / KIT_NAME)}")
    return 0


def install(folder: Path, venv: Path) -> int:
    """Check the kit and install it into the virtual environment `venv`; 0 if all is ready.

    A run after one that was stopped begins anew; a file written last says that `venv` is whole.

    Raises:
        KitError: the kit, the machine or `venv` does not fit, or a step failed.
        OSError: a file cannot be read or written.
    """
    kit = read_kit(folder)
    check_machine(kit)
    if verify(folder):
        raise KitError(f"nothing was installed; {_COPY_AGAIN}")
    program = venv / ("Scripts/sshr-deploy.exe" if os.name == "nt" else "bin/sshr-deploy")
    if _begin(venv, folder):
        _install_into(venv, folder, kit)
        _run("the installed program does not start", program, "--version")
        if hasattr(os, "sync"):
            os.sync()
        (venv / _BEGUN).replace(venv / _DONE)
        _say(f"installed in {venv}")
    else:
        _say(f"{venv} holds this kit already; delete that folder to install it anew")
    doctor = [str(program), "doctor", "--model", str(venv / BUNDLE)]
    ready = subprocess.call(doctor, env=_environment(), stdout=sys.stderr) == 0
    if not ready:
        _say("the kit is installed; the lines above say what this machine lacks")
    command = [str(program), "infer", "SLIDES", "--model", str(venv / BUNDLE), "--out", "RESULTS"]
    print("next:", *map(shlex.quote, command), flush=True)
    return 0 if ready else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    parser = argparse.ArgumentParser(description="Check this kit, and install it.")
    parser.add_argument("action", nargs="?", choices=("install", "verify"), default="install")
    parser.add_argument(
        "--venv",
        default=str(Path("~", PROJECT)),
        metavar="DIR",
        help="new folder for the virtual environment and the bundle (default: %(default)s)",
    )
    chosen = parser.parse_args(arguments)
    folder = Path(__file__).resolve().parent
    try:
        if chosen.action == "verify":
            return verify(folder)
        return install(folder, Path(chosen.venv).expanduser().absolute())
    except (KitError, RuntimeError) as error:  # RuntimeError: there is no home folder
        _say(f"install.py: error: {error}")
    except OSError as error:
        _say(f"install.py: error: {error}; mend that, then run it again")
    except KeyboardInterrupt:
        _say("interrupted; the same command begins anew")
    return 1


def _check_fields(kit: dict[str, Any]) -> None:
    """Types, names that stay inside, and nothing that pip could take for an option."""
    if set(kit) != set(_FIELDS):
        raise ValueError(f"fields {sorted(set(kit) ^ set(_FIELDS))}")
    for name, kind in _FIELDS.items():
        _require(isinstance(kit[name], kind), name)
    _require(re.fullmatch(r"3\.\d{1,3}", kit["python"]), "python")
    _require(re.fullmatch(r"(\d{1,3}\.\d{1,3})?", kit["glibc"]), "glibc")
    _require(all(re.fullmatch(_NAME, extra) for extra in kit["extras"]), "extras")
    for entry in kit["files"]:
        for part in [*entry["parts"], entry]:
            _require(is_safe(part["name"]), f"file name {part['name']!r}")
            _require(type(part["bytes"]) is int, f"size of {part['name']}")
            _require(re.fullmatch("[0-9a-f]{64}", part["sha256"]), f"hash of {part['name']}")
    names = [part["name"] for part in stored(kit)] + [KIT_NAME, SUMS_NAME]
    _require(len(set(names)) == len(names), "a file name occurs twice")
    for package in kit["packages"]:
        _require(re.fullmatch(_NAME, package["name"]), f"package {package['name']!r}")
        _require(re.fullmatch(_VERSION, package["version"]), f"version of {package['name']}")
        _require(re.fullmatch("[0-9a-f]{64}", package["sha256"]), f"hash of {package['name']}")


def _require(holds: object, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _problem(folder: Path, part: dict[str, Any], joined: Any) -> str:
    """The problem with one file, or ""; its content goes into the hash `joined` too."""
    name, path = part["name"], folder / part["name"]
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode):
            return f"changed: {name} is not a regular file"
        if facts.st_size != part["bytes"]:
            return f"changed: {name} has {facts.st_size} bytes, not {part['bytes']}"
        digest = hashlib.sha256()
        for chunk in chunks(path):
            digest.update(chunk)
            joined.update(chunk)
    except (FileNotFoundError, NotADirectoryError):
        return f"missing: {name}"
    except OSError as error:
        return f"unreadable: {name} ({error.strerror})"
    return "" if digest.hexdigest() == part["sha256"] else f"changed: {name} (SHA-256 differs)"


def _begin(venv: Path, folder: Path) -> bool:
    """Make `venv` a folder with nothing but a mark of unfinished work; False if it is whole."""
    fingerprint = file_hash(folder / KIT_NAME)
    if (venv / _DONE).is_file():
        if (venv / _DONE).read_text("utf-8") == fingerprint:
            return False
        raise KitError(f"{venv} holds another kit; choose another --venv, or delete that folder")
    if folder in [venv.resolve(), *venv.resolve().parents]:
        raise KitError(f"{venv} is inside the kit; choose another --venv")
    ours = (venv / _BEGUN).is_file()
    if not ours and os.path.lexists(str(venv)) and (not venv.is_dir() or any(venv.iterdir())):
        raise KitError(f"{venv} exists and this program did not make it; choose another --venv")
    venv.mkdir(parents=True, exist_ok=True)
    (venv / _BEGUN).write_text(fingerprint, "utf-8")
    for path in venv.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        elif path.name != _BEGUN:
            path.unlink()
    return True


def _install_into(venv: Path, folder: Path, kit: dict[str, Any]) -> None:
    _say(f"making a virtual environment in {venv}")
    advice = (
        f"no virtual environment could be made (Debian: apt install python{kit['python']}-venv)"
    )
    _run(advice, sys.executable, "-I", "-m", "venv", venv)
    joined = venv / "joined-wheels"
    for entry in kit["files"]:
        if entry["name"].startswith(f"{BUNDLE}/"):
            _copy(folder, entry, venv / entry["name"])
        elif entry["parts"]:
            _copy(folder, entry, joined / PurePosixPath(entry["name"]).name)
    _say(f"installing {len(kit['packages'])} packages")
    wanted = venv / "requirements.txt"
    wanted.write_text("".join(_requirement(kit, package) for package in kit["packages"]), "utf-8")
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    sources = ["--no-index", "--no-cache-dir", "--find-links", folder / WHEELS]
    sources += ["--find-links", joined] if joined.exists() else []
    hashes = ["--require-hashes", "--only-binary", ":all:", "--requirement", wanted]
    _run("pip could not install the wheels", *pip, *sources, *hashes)
    wanted.unlink()
    if joined.exists():
        shutil.rmtree(str(joined))


def _requirement(kit: dict[str, Any], package: dict[str, str]) -> str:
    extras = f"[{','.join(kit['extras'])}]" if package["name"] == PROJECT else ""
    exactly = f"{package['name']}{extras}=={package['version']}"
    return f"{exactly} --hash=sha256:{package['sha256']}\n"


def _copy(folder: Path, entry: dict[str, Any], target: Path) -> None:
    """Copy a file or join its parts, checked once more on the way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for part in entry["parts"] or [entry]:
            for chunk in chunks(folder / part["name"]):
                digest.update(chunk)
                file.write(chunk)
    if digest.hexdigest() != entry["sha256"]:
        raise KitError(f"{entry['name']} changed while it was copied; {_COPY_AGAIN}")


def _run(failure: str, *command: object) -> None:
    code = subprocess.call([str(word) for word in command], env=_environment(), stdout=sys.stderr)
    if code != 0:
        raise KitError(f"{failure} (exit code {code}, its own words are above); then run it again")


def _environment() -> dict[str, str]:
    """This process's without what steers Python and pip: the kit's wheels and no others."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("PIP_", "PYTHON"))}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
