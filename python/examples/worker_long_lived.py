"""A worker that lives on, as Celery's do: one execution after the other in the same process.

At the beginning of an execution, all modules of an older workspace are evicted from `sys.modules`, or
none. What the user's code leaves elsewhere stays: a fork for each execution is the clean way.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from bifrost_module_cache import CacheError, Modules


def main(jobs: Iterable[str], url: str | None = None) -> Iterator[Any]:
    """Runs `main()` of each of these modules."""
    with Modules(url, stale_if_error=30) as modules:
        modules.install()
        modules.preload()
        for job in jobs:
            try:
                with modules.execution():
                    yield importlib.import_module(job).main()
            except CacheError as error:
                if not error.is_transient:
                    raise
                yield f"again later: {error}"
