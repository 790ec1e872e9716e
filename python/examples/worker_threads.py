"""A pool of threads. Executions that run at the same time share one workspace; one that would need a
newer one waits for the others, and is `Busy` if that takes too long."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bifrost_module_cache import Busy, Modules


def main(jobs: Sequence[str], url: str | None = None) -> list[Any]:
    """Runs `main()` of each of these modules."""
    with Modules(url) as modules:
        modules.install()

        def run(job: str) -> Any:
            while True:
                try:
                    with modules.execution():
                        return importlib.import_module(job).main()
                except Busy:
                    continue  # executions of an older workspace still run

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(run, jobs))
