"""Opens a bundle as the options of a command say."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from sshr_deploy.cli.option_names import as_options

if TYPE_CHECKING:
    from sshr_deploy.api import Model
    from sshr_deploy.bundle import Bundle
    from sshr_deploy.cluster.opening import RayModel
    from sshr_deploy.runtime.contract import SessionInfo
    from sshr_deploy.runtime.operation.events import Events
    from sshr_deploy.runtime.pipeline.spec import RunSpec


def open_in_workers(
    spec: RunSpec,
    out: Path,
    source: Path,
    ray: str,
    cores: int | None,
    events: Events,
    *,
    quiet: bool,
    for_slides: bool,
) -> AbstractContextManager[RayModel]:
    """See `open_workers`; says on stderr what is built, and which workers are lost."""
    from sshr_deploy.cli.console import say
    from sshr_deploy.cluster.opening import open_workers

    return open_workers(
        spec,
        out,
        [source],
        ray,
        cores,
        say=lambda text: None if quiet else say(text),
        wording=as_options,
        for_slides=for_slides,
        events=events,
    )


def open_model(
    spec: RunSpec, *, quiet: bool = False, bundle: Bundle | None = None, for_slides: bool = False
) -> Model:
    """See `Model`; says on stderr what is built, and what runs though it is not proven."""
    from sshr_deploy.api import Model
    from sshr_deploy.cli.console import say

    def opened(info: SessionInfo) -> SessionInfo:
        """Said of each engine; its words stand in documents too."""
        if info.unqualified is not None:
            say(f"warning: this network is not qualified here: {info.unqualified}")
        return info.worded(as_options)

    model = Model(
        spec,
        bundle,
        lambda text: None if quiet else say(text),
        on_open=opened,
        for_slides=for_slides,
    )
    trained_on = model.bundle.manifest.relabelled_from
    if trained_on is not None:
        say(
            f"warning: the classes were renamed by the export (--relabel); the network was trained "
            f"on {', '.join(trained_on['classes'])}"
        )
    return model
