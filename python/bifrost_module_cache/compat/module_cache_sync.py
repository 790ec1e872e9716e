"""The specification's ``module_cache_sync``, for import hooks::

    from bifrost_module_cache.compat.module_cache_sync import get_module_sync

Stricter than it in this: an outage, a time-out or a corrupt entry is a ``CacheError`` (an
``ImportError``), and a path that no module may have is an ``InvalidPath`` (a ``ValueError``). Connections
are kept and shared, where the specification makes a client for each call. ``Modules`` does what an
import hook around these two would.
"""

from __future__ import annotations

from .shared import MODULE_INDEX_KEY, MODULE_KEY_PREFIX, CachedModule, as_dict, reader

__all__ = [
    "MODULE_INDEX_KEY",
    "MODULE_KEY_PREFIX",
    "CachedModule",
    "get_module_index_sync",
    "get_module_sync",
]


def get_module_sync(path: str) -> CachedModule | None:
    """Fetch a single module from the cache; None if Redis says that there is none."""
    return as_dict(reader().get(path))


def get_module_index_sync() -> set[str]:
    """All cached module paths."""
    return reader().paths()
