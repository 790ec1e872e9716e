"""What both drop-ins share: one reader and one writer for the process, and the specification's names."""

from __future__ import annotations

from typing import TypedDict

from .. import _native

__all__ = ["MODULE_INDEX_KEY", "MODULE_KEY_PREFIX", "CachedModule", "as_dict", "reader", "writer"]

MODULE_KEY_PREFIX = "bifrost:module:"
MODULE_INDEX_KEY = "bifrost:module:index"

_writer: _native.ModuleWriter | None = None


class CachedModule(TypedDict):
    """A module as the specification has it: a dict."""

    content: str
    path: str
    hash: str


def writer() -> _native.ModuleWriter:
    """The process's writer. It connects at its first call, to where REDIS_URL says."""
    global _writer
    if _writer is None:
        _writer = _native.ModuleWriter()
    return _writer


def reader() -> _native.ModuleReader:
    """A reader over the same connections."""
    return writer().reader


def as_dict(module: _native.CachedModule | None) -> CachedModule | None:
    """A module as a dict."""
    if module is None:
        return None
    return CachedModule(content=module.content, path=module.path, hash=module.hash)
