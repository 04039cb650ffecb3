"""Opens a bundle's session as the options of a command say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshr_deploy.precision import Precision

if TYPE_CHECKING:
    from sshr_deploy.bundle import Bundle
    from sshr_deploy.runtime.contract import Session


def open_engine(
    bundle: Bundle,
    engine: str,
    *,
    precision: Precision | None = None,
    batch: int | None = None,
    no_build: bool = False,
    allow_unqualified: bool = False,
    quiet: bool = False,
    threads: int | None = None,
) -> Session:
    """See `open_session`; says on stderr what is built, and what runs though it is not proven.

    `threads` are the CPU threads of this process from now on, see `choose_threads`.
    """
    from sshr_deploy.cli.console import say
    from sshr_deploy.runtime.engines.choosing import open_session
    from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
    from sshr_deploy.runtime.settings import OpenOptions

    use_threads(choose_threads(bundle.manifest.model.width, threads))
    options = OpenOptions(precision, batch, not no_build, allow_unqualified)
    session = open_session(
        bundle, engine, options, on_step=lambda text: None if quiet else say(text)
    )
    trained_on = bundle.manifest.relabelled_from
    if trained_on is not None:
        say(
            f"warning: the classes were renamed by the export (--relabel); the network was trained "
            f"on {', '.join(trained_on['classes'])}"
        )
    if session.info.unqualified is not None:
        say(f"warning: this network is not qualified here: {session.info.unqualified}")
    return session
