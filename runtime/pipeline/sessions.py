"""The network of a model in an engine: once for patches, once for fields, as they are needed."""

from __future__ import annotations

from collections.abc import Callable

from sshr_deploy.bundle import Bundle
from sshr_deploy.closing import Closing
from sshr_deploy.manifest import Manifest
from sshr_deploy.runtime.contract import Session, SessionInfo
from sshr_deploy.runtime.results.findings import Kind
from sshr_deploy.runtime.settings import Mode

NO_FIELDS = (
    "tiles alone as published (`mode` reference): this model was exported without graphs for "
    "fields, export it again for seamless slides"
)


class Sessions(Closing):
    """Sessions of a bundle, each opened when it is first asked for; for one thread."""

    def __init__(self, bundle: Bundle, open_session: Callable[[Bundle], Session]) -> None:
        self._bundle, self._open = bundle, open_session
        self._patches: Session | None = None
        self._fields: Session | None = None

    @classmethod
    def of(cls, bundle: Bundle, session: Session) -> Sessions:
        """One that is open, as that of its own inputs; it stays the caller's to close."""

        def refuse(_: Bundle) -> Session:
            raise AssertionError("no other session was given")

        sessions = cls(bundle, refuse)
        if session.geometry.is_patch:
            sessions._patches = session
        else:
            sessions._fields = session
        return sessions

    @property
    def patches(self) -> Session:
        """That of patches.

        Raises:
            See `open_session`.
        """
        if self._patches is None:
            self._patches = self._open(self._bundle)
        return self._patches

    @property
    def fields(self) -> Session:
        """That of fields.

        Raises:
            BundleError: the bundle has none; and see `open_session`.
        """
        if self._fields is None:
            self._fields = self._open(self._bundle.on_fields())
        return self._fields

    def of_slides(self, mode: Mode) -> Session:
        """That of slides in a mode, and of images that are cut into parts."""
        return self.fields if mode is Mode.SEAMLESS else self.patches

    def info(self, kind: Kind, mode: Mode) -> SessionInfo:
        """The engine of inputs of a kind, or where it is not open the other one."""
        first, second = self._patches, self._fields
        if kind == "slide" and mode is Mode.SEAMLESS:
            first, second = second, first
        session = first or second
        assert session is not None
        return session.info

    def close(self) -> None:
        """Free the engines; safe to call twice."""
        for session in (self._patches, self._fields):
            if session is not None:
                session.close()


def choose_mode(wish: Mode | None, bundle: Bundle) -> Mode:
    """The mode of a run: the wish, or what suits the bundle.

    Raises:
        BundleError: seamless is wished for, and it has none.
    """
    if wish is Mode.SEAMLESS:
        bundle.on_fields()
    return wish or default_mode(bundle.manifest)


def default_mode(manifest: Manifest) -> Mode:
    """Seamless where a bundle has graphs for fields, else reference."""
    return Mode.REFERENCE if manifest.fields is None else Mode.SEAMLESS
