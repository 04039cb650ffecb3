"""Find the library that reads a slide, or say in one line why none does."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

import openslide

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides.dicom_series import series_uid
from sshr_deploy.runtime.slides.openslide_reader import OpenSlideReader
from sshr_deploy.runtime.slides.reader import SlideReader, mapped_read_errors, one_line_reason
from sshr_deploy.runtime.slides.tiff_metadata import check_pages_complete
from sshr_deploy.runtime.slides.tifffile_reader import TifffileReader

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".btf", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide",
     ".bif", ".dcm", ".czi"}
)  # fmt: skip
"""Lower-case suffixes of files that are taken for slides when a folder is searched."""

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PICTURE_MAGIC = {b"\xff\xd8\xff": ("JPEG", ".jpg"), b"\x89PNG": ("PNG", ".png")}
_NDPI_VENDOR = "hamamatsu"
"""Its TIFFs hide 64-bit offsets in the classic format, which only OpenSlide follows here."""
_FIX = "check that the copy is complete, or convert it to a pyramidal TIFF"


def open_slide(path: Path) -> SlideReader:
    """Open a slide with OpenSlide, or with tifffile or wsidicom what it does not know.

    Those are TIFFs, and DICOM in other codecs (the extra `[dicom]`). A TIFF of no scanner's format
    (OpenSlide's `generic-tiff`) is opened with tifffile too: OpenSlide sees neither the pyramid
    (SubIFDs) nor the pixel size of an OME-TIFF, and takes the first channel of a fluorescence image
    for the slide.

    Raises:
        InputError: missing, empty, unreadable, damaged, of no known kind, a TIFF that is not
            8-bit RGB or grey, or beside a pipe that OpenSlide would open; one line that names the
            file and what to do.
    """
    magic = _first_bytes(path)
    _refuse_pipes_beside(path)
    try:
        slide = OpenSlideReader(path)
    except openslide.OpenSlideError as error:
        if magic in _TIFF_MAGIC:
            return _open_tiff(path)
        if path.suffix.lower() == ".dcm" and not _is_unknown(error):
            return _open_dicom(path, error)
        raise _refusal(path, magic, error) from error
    except Exception as error:
        raise InputError(f"{path} cannot be opened: {one_line_reason(error)}; {_FIX}") from error
    if magic not in _TIFF_MAGIC or slide.vendor == _NDPI_VENDOR:
        return slide
    try:
        return _better_reader(slide)
    except InputError:
        slide.close()
        raise


def companions(path: Path) -> frozenset[Path]:
    """Files and folders beside a slide that belong to it and are no inputs themselves.

    A MIRAX file `x.mrxs` has a folder `x`; a Hamamatsu `.vms` or `.vmu` names its JPEG and other
    files in its text; a DICOM slide has a file a level, all of one series, and OpenSlide opens the
    whole slide from any of them. Empty for all other formats, and where the file cannot be read:
    opening it will say so. Only regular files are opened: a pipe would block.
    """
    suffix = path.suffix.lower()
    with suppress(OSError):
        if not path.is_file():
            return frozenset()
        if suffix == ".mrxs":
            folder = path.with_suffix("")
            return frozenset({folder} if folder.is_dir() else ())
        if suffix in (".vms", ".vmu"):
            return _named_files(path)
        if suffix == ".dcm":
            return _rest_of_series(path)
    return frozenset()


def _named_files(path: Path) -> frozenset[Path]:
    return frozenset(file for file in _names_in(path) if file.is_file())


def _names_in(path: Path) -> list[Path]:
    """Paths beside a `.vms` or `.vmu` file that its lines `key=name` may mean."""
    text = path.read_text("utf-8", errors="replace")
    names = {line.partition("=")[2].strip() for line in text.splitlines() if "=" in line}
    return [path.with_name(name) for name in sorted(names) if name and Path(name).name == name]


def _rest_of_series(path: Path) -> frozenset[Path]:
    others = [
        p for p in path.parent.iterdir() if p.suffix.lower() == ".dcm" and p != path and p.is_file()
    ]
    series = series_uid(path) if others else None
    return frozenset(p for p in others if series is not None and series_uid(p) == series)


def _refuse_pipes_beside(path: Path) -> None:
    """Refuse a slide beside whose files OpenSlide would wait for a pipe or device for ever.

    It opens each entry of a DICOM file's folder to find the series, whatever its name, and what a
    MIRAX folder or a `.vms` names.
    """
    suffix = path.suffix.lower()
    entries: list[Path] = []
    with suppress(OSError):  # opening the slide will say what is wrong
        if suffix == ".dcm":
            entries = list(path.parent.iterdir())
        elif suffix == ".mrxs":
            entries = list(path.with_suffix("").iterdir())
        elif suffix in (".vms", ".vmu"):
            entries = _names_in(path)
    for entry in entries:
        if _would_block(entry):
            raise InputError(
                f"{path} cannot be opened beside {entry}, a pipe or device that OpenSlide would "
                "wait for; move it to another folder"
            )


def _would_block(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # a link to nothing: opening it fails at once
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _better_reader(slide: OpenSlideReader) -> SlideReader:
    if slide.vendor != "generic-tiff":
        with mapped_read_errors(slide.path, "cannot be read as a TIFF", _FIX):
            check_pages_complete(slide.path)
        return slide
    tiff = _open_tiff(slide.path)
    # tifffile does not join the levels of a pyramid whose pages are not marked as reduced
    if len(slide.level_sizes_px) > len(tiff.level_sizes_px):
        tiff.close()
        return slide
    slide.close()
    return tiff


def _open_tiff(path: Path) -> TifffileReader:
    with mapped_read_errors(path, "cannot be read as a TIFF", _FIX):
        return TifffileReader(path)


def _open_dicom(path: Path, error: openslide.OpenSlideError) -> SlideReader:
    """Open a DICOM slide that OpenSlide refuses with `error`."""
    try:
        from sshr_deploy.runtime.slides.wsidicom_reader import WsidicomReader
    except ImportError as missing:
        reason = one_line_reason(error)
        raise InputError(
            f"{path} cannot be opened: {reason}; wsidicom reads more kinds of DICOM: pip install "
            f"'sshr-deploy[dicom]'; else {_FIX}"
        ) from missing
    with mapped_read_errors(path, "cannot be opened", _FIX):
        return WsidicomReader(path, companions(path))


def _refusal(path: Path, magic: bytes, error: openslide.OpenSlideError) -> InputError:
    for start, (kind, suffix) in _PICTURE_MAGIC.items():
        if magic.startswith(start):
            return InputError(
                f"{path} is a {kind} picture, not a slide; name it {suffix} to use it as a patch"
            )
    if _is_unknown(error):
        return InputError(f"{path} is not a slide that OpenSlide or tifffile knows; {_FIX}")
    return InputError(f"{path} cannot be opened: {one_line_reason(error)}; {_FIX}")


def _is_unknown(error: openslide.OpenSlideError) -> bool:
    return isinstance(error, openslide.OpenSlideUnsupportedFormatError)


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a slide; give a file or the folder above it")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a pipe or device, not a file; give a slide")
    fix = "check the path and your rights to the file"
    with mapped_read_errors(path, "cannot be read", fix), path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise InputError(f"{path} is empty (0 bytes); copy it again")
    return magic
