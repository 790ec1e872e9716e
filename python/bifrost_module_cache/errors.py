"""What can go wrong, each kind with one remedy of its own."""

from __future__ import annotations

__all__ = [
    "Busy",
    "CacheError",
    "Corrupt",
    "InvalidConfig",
    "InvalidPath",
    "Refused",
    "Unavailable",
]


class CacheError(ImportError):
    """The cache could not say what it holds, or was not asked because something was wrong.

    An ``ImportError``, and never a ``ModuleNotFoundError``: an outage must not look like an
    absence. Its kinds are below; what is neither of them was refused before anything was sent.
    """

    server: str | None
    """Which Redis it is about: ``host:port/database``."""
    is_transient: bool
    """True if the same call may succeed later though nothing is changed by hand."""
    may_have_been_applied: bool
    """True if a write was sent and its answer never came, or was applied in part."""

    def __init__(
        self,
        message: str = "",
        *,
        server: str | None = None,
        path: str | None = None,
        is_transient: bool = False,
        may_have_been_applied: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(message, name=name, path=path)
        self.server = server
        self.is_transient = is_transient
        self.may_have_been_applied = may_have_been_applied


class Unavailable(CacheError):
    """Redis could not be asked, or did not answer in time: an outage, never an absence."""


class Busy(CacheError):
    """Whatever it takes was in use for as long as a call may wait for it."""


class Corrupt(CacheError):
    """What is stored under a module's key is not that module."""


class Refused(CacheError):
    """Redis answered, and the answer was no."""


class _Invalid(ValueError):
    """Something was refused before anything was sent."""

    def __init__(
        self,
        message: str = "",
        *,
        server: str | None = None,
        path: str | None = None,
        is_transient: bool = False,
        may_have_been_applied: bool = False,
    ) -> None:
        super().__init__(message)
        self.path = path


class InvalidPath(_Invalid):
    """A path that no module may have. Nothing was sent."""


class InvalidConfig(_Invalid):
    """A setting that can't be used. The error shows neither a URL nor a password."""
