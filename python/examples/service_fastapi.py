"""A FastAPI service that saves, deletes and moves modules.

`uvicorn --factory service_fastapi:application` serves it; DATABASE_URL and REDIS_URL say where.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from service_sqlalchemy_async import Workspace
from sqlalchemy.ext.asyncio import create_async_engine

from bifrost_module_cache import CacheError, InvalidPath, aio


class Source(BaseModel):
    """What is saved."""

    content: str


class Move(BaseModel):
    """Where a module goes."""

    to: str


def application() -> FastAPI:
    """The service."""
    engine = create_async_engine(os.environ["DATABASE_URL"])
    workspace = Workspace(engine, aio.ModuleWriter())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.exception_handler(InvalidPath)
    async def invalid(request: Request, error: InvalidPath) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    @app.exception_handler(CacheError)
    async def unavailable(request: Request, error: CacheError) -> JSONResponse:
        # The row is saved. A client that sends the request again brings it to the cache.
        return JSONResponse({"detail": str(error)}, status_code=503)

    @app.put("/modules/{path:path}")
    async def save(path: str, source: Source) -> dict[str, int]:
        report = await workspace.save(path, source.content)
        return {"written": report.written}

    @app.delete("/modules/{path:path}")
    async def delete(path: str) -> dict[str, int]:
        report = await workspace.delete(path)
        return {"removed": report.removed}

    @app.post("/modules/{path:path}")
    async def move(path: str, move: Move) -> dict[str, int]:
        report = await workspace.move(path, move.to)
        return {"written": report.written, "removed": report.removed}

    return app
