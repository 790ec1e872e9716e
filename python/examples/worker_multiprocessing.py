"""multiprocessing, with `fork` and with `spawn`.

Forked children inherit what the parent has prepared. Spawned ones start from nothing: each makes its own
`Modules` and compiles what it imports.
"""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Sequence
from typing import Any

from bifrost_module_cache import Modules

modules: Modules


def forked(jobs: Sequence[str], url: str | None = None) -> list[Any]:
    """One child for each job. Nothing may run in other threads here: see `Modules.close`."""
    global modules
    modules = Modules(url)
    modules.install()
    modules.preload()
    modules.close()  # ends the thread that follows Redis; the workspace stays as it is now
    context = multiprocessing.get_context("fork")
    with context.Pool(2, maxtasksperchild=1) as pool:
        results = pool.map(run, jobs, chunksize=1)
    modules.uninstall()
    return results


def spawned(jobs: Sequence[str], url: str | None = None) -> list[Any]:
    """Children that live on and take one job after the other."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, initializer=start, initargs=(url,)) as pool:
        return pool.map(run, jobs)


def start(url: str | None) -> None:
    """In a child that begins with nothing."""
    global modules
    modules = Modules(url)
    modules.install()


def run(job: str) -> Any:
    """One execution."""
    with modules.execution():
        return importlib.import_module(job).main()
