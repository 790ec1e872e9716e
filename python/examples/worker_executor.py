"""concurrent.futures: a pool of processes, each of which forks off one that has prepared the workspace."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import worker_multiprocessing as worker


def main(jobs: Sequence[str], url: str | None = None) -> list[Any]:
    """Runs jobs in a pool. Its processes live on, so they begin an execution for each job themselves."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, worker.start, (url,)) as pool:
        return list(pool.map(worker.run, jobs))
