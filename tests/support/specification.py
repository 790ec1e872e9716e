"""The specification's own code, driven by tests/api/python.rs.

Between the two lines below it is taken over to the letter, but for its imports and the warm-up.
"""

import asyncio
import json
import logging
import os
import sys
from typing import TypedDict

import redis
import redis.asyncio


async def get_redis_client():
    return redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])


# ------------------------------------------------------------------------------------------------

logger = logging.getLogger(__name__)

MODULE_KEY_PREFIX = "bifrost:module:"
MODULE_INDEX_KEY = "bifrost:module:index"


class CachedModule(TypedDict):
    content: str
    path: str
    hash: str


async def get_module(path: str) -> CachedModule | None:
    """Fetch a single module from cache."""
    redis = await get_redis_client()
    key = f"{MODULE_KEY_PREFIX}{path}"
    data = await redis.get(key)
    if data:
        return json.loads(data)
    return None


async def set_module(path: str, content: str, content_hash: str) -> None:
    """Cache a module and add to index."""
    redis = await get_redis_client()
    key = f"{MODULE_KEY_PREFIX}{path}"

    cached = CachedModule(content=content, path=path, hash=content_hash)
    await redis.set(key, json.dumps(cached))
    await redis.sadd(MODULE_INDEX_KEY, path)

    logger.debug(f"Cached module: {path}")


async def invalidate_module(path: str) -> None:
    """Remove module from cache and index."""
    redis = await get_redis_client()
    key = f"{MODULE_KEY_PREFIX}{path}"

    await redis.delete(key)
    await redis.srem(MODULE_INDEX_KEY, path)

    logger.debug(f"Invalidated module cache: {path}")


async def get_all_module_paths() -> set[str]:
    """Get all cached module paths (for import hook index)."""
    redis = await get_redis_client()
    paths = await redis.smembers(MODULE_INDEX_KEY)
    return {p.decode() if isinstance(p, bytes) else p for p in paths}


def _get_sync_redis() -> redis.Redis:
    """Get synchronous Redis client."""
    return redis.Redis.from_url(
        os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
        decode_responses=True,
    )


def get_module_sync(path: str) -> CachedModule | None:
    """Fetch a single module from cache (synchronous)."""
    client = _get_sync_redis()
    key = f"{MODULE_KEY_PREFIX}{path}"
    data = client.get(key)
    if data:
        return json.loads(data)
    return None


def get_module_index_sync() -> set[str]:
    """Get all cached module paths (synchronous)."""
    client = _get_sync_redis()
    paths = client.smembers(MODULE_INDEX_KEY)
    return {p if isinstance(p, str) else p.decode() for p in paths}

# ------------------------------------------------------------------------------------------------


async def main() -> None:
    """Sets, invalidates, gets and lists as the JSON on stdin asks; answers both clients' views."""
    request = json.load(sys.stdin.buffer)
    for module in request.get("set", []):
        await set_module(module["path"], module["content"], module["hash"])
    for path in request.get("invalidate", []):
        await invalidate_module(path)
    paths = request.get("get", [])
    answer = {
        "sync": [get_module_sync(path) for path in paths],
        "async": [await get_module(path) for path in paths],
        "index_sync": sorted(get_module_index_sync()),
        "index_async": sorted(await get_all_module_paths()),
    }
    print(json.dumps(answer))


asyncio.run(main())
