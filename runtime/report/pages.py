"""What both pages share: templates, style, and the policy that keeps them from fetching anything.

A page is one file that holds its style and script; only pictures lie beside it. Its policy allows
that style and script by their hashes, so that nothing else can run that a name might bring in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sshr_deploy.atomic import write_text
from sshr_deploy.errors import OutputError, first_line
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.report import figures
from sshr_deploy.version import __version__

_NOTHING = "'none'"
_HERE = Path(__file__).parent
_FILTERS = (
    figures.area,
    figures.share,
    figures.probability,
    figures.agreement,
    figures.pixel_size,
    figures.seconds,
    figures.size,
    figures.moment,
    figures.count,
    figures.link,
)


def write_page(path: Path, make: Callable[[], str]) -> None:
    """Write the page that `make` gives.

    Raises:
        OutputError: it cannot be written; or not be made, by a defect that must cost no result.
    """
    try:
        text = make()
    except Exception as error:
        raise OutputError(
            f"{path} met a defect of sshr-deploy ({type(error).__name__}: {first_line(error)}); "
            "please report it; the results are there"
        ) from error
    write_text(path, text)


def page(
    template: str, classes: Sequence[str], profile: Profile, script: str | None = None, **parts: Any
) -> str:
    """A page from its template.

    Args:
        template: its name.
        classes: their names; `swatch` and `bar` of the templates take the index of one.
        profile: has their colours; those of other profiles are grey.
        script: name of its script, if it has one.
        parts: that the template takes.
    """
    style = _text("tokens.css") + _text("templates/page.css") + _class_style(classes, profile)
    code = "" if script is None else _text(f"templates/{script}")
    return (
        _environment()
        .get_template(template)
        .render(
            parts,
            classes=classes,
            style=Markup(style),
            script=Markup(code),
            policy=_policy(style, code),
            version=__version__,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: figures.shown(value) if type(value) is str else value,
    )
    environment.filters |= {function.__name__: function for function in _FILTERS}
    return environment


@cache
def _text(name: str) -> str:
    return (_HERE / name).read_text("utf-8")


def _class_style(classes: Sequence[str], profile: Profile) -> str:
    colours: Mapping[str, str] = {tissue.name: tissue.color for tissue in profile.classes}
    return "".join(
        f".k{index}{{--k:{colours.get(name, 'var(--pale-ink)')}}}\n"
        for index, name in enumerate(classes)
    )


def _policy(style: str, script: str) -> str:
    return (
        "default-src 'none'; img-src 'self' file:; "
        f"style-src {_hash(style)}; script-src {_hash(script) if script else _NOTHING}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"
