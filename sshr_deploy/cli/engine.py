"""Opens a bundle as the options of a command say."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sshr_deploy.cli.option_names import as_options

if TYPE_CHECKING:
    from sshr_deploy.api import Model
    from sshr_deploy.bundle import Bundle
    from sshr_deploy.cluster.opening import RayModel
    from sshr_deploy.runtime.contract import SessionInfo
    from sshr_deploy.runtime.operation.events import Events
    from sshr_deploy.runtime.pipeline.spec import RunSpec


class RayChoice(NamedTuple):
    """How a command uses Ray."""

    address: str
    cores: int | None
    out: Path
    sources: tuple[Path, ...]
    events: Events


def open_engines(
    spec: RunSpec, ray: RayChoice | None, *, quiet: bool, for_slides: bool
) -> AbstractContextManager[Model | RayModel]:
    """`open_model`, or `open_workers` of Ray; says on stderr what is built, and what is lost."""
    if ray is None:
        return open_model(spec, quiet=quiet, for_slides=for_slides)
    from sshr_deploy.cli.console import say
    from sshr_deploy.cluster.opening import open_workers

    return open_workers(
        spec,
        ray.out,
        ray.sources,
        ray.address,
        ray.cores,
        say=lambda text: None if quiet else say(text),
        wording=as_options,
        for_slides=for_slides,
        events=ray.events,
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
