"""The clean way: a process prepares the workspace and forks a child for each execution.

A child inherits sources and code objects, asks no server for its imports, and takes along whatever the
user's code leaves behind when it ends.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterable

from bifrost_module_cache import Modules


def main(jobs: Iterable[str], url: str | None = None) -> list[int]:
    """Runs `main()` of each of these modules in a child of its own. Returns their exit codes."""
    modules = Modules(url)
    modules.install()
    modules.preload()
    # So that collections in the children don't write to what they share with this process.
    gc.freeze()
    codes = []
    for job in jobs:
        with modules.execution():
            pid = os.fork()
            if pid == 0:
                os._exit(run(job))
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    modules.uninstall()
    modules.close()
    return codes


def run(job: str) -> int:
    """One execution."""
    try:
        importlib.import_module(job).main()
    except BaseException as error:
        print(f"{job}: {error!r}")
        return 1
    return 0


if __name__ == "__main__":
    import sys

    print(main(sys.argv[1:]))
