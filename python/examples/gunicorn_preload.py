"""gunicorn with preload: the master prepares the workspace, and its workers inherit it.

    gunicorn --preload --workers 2 gunicorn_preload:application

Each worker follows Redis by itself, and begins an execution for each request. The master goes on following
it too: a worker that is started later inherits what is then current. From CPython 3.12 on a fork beside
the thread that does so warns (DeprecationWarning); `modules.close()` before the fork avoids that, where the
workers shall go on with the workspace of that moment.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from bifrost_module_cache import CacheError, Modules

modules = Modules()
modules.install()
modules.preload()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Runs the workflow that the path names."""
    name = environ["PATH_INFO"].strip("/").replace("/", ".")
    try:
        with modules.execution():
            answer = importlib.import_module(name).main()
    except CacheError as error:
        start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
        return [str(error).encode()]
    except ModuleNotFoundError as error:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return ["\n".join([str(error), *getattr(error, "__notes__", [])]).encode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer).encode()]
