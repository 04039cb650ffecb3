"""What runs must have in common to share a results folder."""

from __future__ import annotations

import json
from dataclasses import asdict

from pydantic import JsonValue

from sshr_deploy.manifest import Manifest
from sshr_deploy.runtime.pipeline.sessions import default_mode
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.version import __version__

_OWN_SETTINGS = ("batch", "readers", "max_slide_minutes", "include", "exclude", "any_stain")
"""Those in which they may differ: they decide which results there are, not what is in them."""
_WORDS = {"model": "model", "sshr_deploy": "release of sshr-deploy", "mpp_um": "`mpp`"}

Terms = dict[str, JsonValue]


def terms_of(manifest: Manifest, manifest_sha256: str, settings: InferSettings) -> Terms:
    """All that decides the results, except the engine, which each machine proves for itself."""
    settled = {k: v for k, v in asdict(settings).items() if k not in _OWN_SETTINGS}
    if settings.mpp_table is not None:
        del settled["mpp_table"]["path"]  # each machine may have a copy
    settled |= settled.pop("outputs")
    settled["mode"] = settings.mode or default_mode(manifest)
    terms = {"model": manifest_sha256, "sshr_deploy": __version__, **settled}
    as_read: Terms = json.loads(json.dumps(terms, default=str))
    return as_read


def difference(ours: Terms, theirs: Terms) -> str:
    """In what terms differ: "`mode` and another model"."""
    names = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    return " and another ".join(_WORDS.get(name, f"`{name}`") for name in names)
