"""An import hook around the specification's `module_cache_sync`: a client for each call, and a compilation
in each process."""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any

import redis


def _get_sync_redis() -> Any:
    return redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


def get_module_sync(path: str) -> Any:
    data = _get_sync_redis().get(f"bifrost:module:{path}")
    return json.loads(data) if data else None


def get_module_index_sync() -> set[str]:
    return set(_get_sync_redis().smembers("bifrost:module:index"))


class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        base = fullname.replace(".", "/")
        for candidate, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            module = get_module_sync(candidate)
            if module is not None:
                spec = importlib.util.spec_from_loader(fullname, self, is_package=is_package)
                assert spec is not None
                spec.loader_state = module
                return spec
        if any(known.startswith(base + "/") for known in get_module_index_sync()):
            return ModuleSpec(fullname, None, is_package=True)
        return None

    def exec_module(self, module: Any) -> None:
        cached = module.__spec__.loader_state
        exec(compile(cached["content"], cached["path"], "exec"), module.__dict__)


def install(url: str) -> None:
    os.environ["REDIS_URL"] = url
    sys.meta_path.append(Hook())
