"""Python modules from a cache in Redis: for workers that import them and services that write them.

A worker::

    modules = Modules()          # REDIS_URL says where Redis is
    modules.install()            # `import` finds the workspace from now on
    modules.preload()            # compiles it: forked children inherit that
    with modules.execution():    # one consistent workspace for one run
        import shared.halopsa

A service::

    writer = aio.ModuleWriter()
    await writer.refresh(paths, fetch)    # after the commit

Importing this package starts no thread and connects to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._native import (
    CachedModule,
    ClearReport,
    Config,
    Diagnosis,
    ModuleReader,
    ModuleWriter,
    PublishReport,
    RefreshReport,
    Resolution,
    Snapshot,
    Status,
    load_snapshot,
)
from .errors import (
    Busy,
    CacheError,
    Corrupt,
    InvalidConfig,
    InvalidPath,
    Refused,
    Unavailable,
)
from .finder import Finder
from .modules import Modules
from .preload import PreloadReport

if TYPE_CHECKING:
    from . import aio

__all__ = [
    "Busy",
    "CacheError",
    "CachedModule",
    "ClearReport",
    "Config",
    "Corrupt",
    "Diagnosis",
    "Finder",
    "InvalidConfig",
    "InvalidPath",
    "ModuleReader",
    "ModuleWriter",
    "Modules",
    "PreloadReport",
    "PublishReport",
    "RefreshReport",
    "Refused",
    "Resolution",
    "Snapshot",
    "Status",
    "Unavailable",
    "aio",
    "load_snapshot",
]


def __getattr__(name: str) -> Any:
    # A worker need not load asyncio.
    if name == "aio":
        return importlib.import_module(".aio", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
