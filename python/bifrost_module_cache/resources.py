"""``importlib.resources`` over what the cache holds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib.resources.abc import Traversable, TraversableResources
from typing import IO, Any

from .source import Source, children

__all__ = ["WorkspacePath", "WorkspaceReader"]


class WorkspaceReader(TraversableResources):
    """Reads a package's directory."""

    def __init__(self, source: Source, root: str, directory: str) -> None:
        self._source = source
        self._root = root
        self._directory = directory

    def files(self) -> Traversable:
        """The directory of the package."""
        return WorkspacePath(self._source, self._root, self._directory)


class WorkspacePath(Traversable):
    """A file or a directory of the workspace. Neither lies on a disk."""

    def __init__(self, source: Source, root: str, path: str) -> None:
        self._source = source
        self._root = root
        self._path = path

    @property
    def name(self) -> str:
        """Its last part."""
        return self._path.rpartition("/")[2]

    def iterdir(self) -> Iterator[Traversable]:
        """What lies directly in it."""
        entries = children(self._source, self._path)
        if not entries:
            raise NotADirectoryError(20, "the cache has nothing in this directory", str(self))
        return (self._below(name) for name in entries)

    def is_dir(self) -> bool:
        """Whether anything lies in it."""
        return bool(children(self._source, self._path))

    def is_file(self) -> bool:
        """Whether the cache holds it."""
        return self._content() is not None

    def joinpath(self, *descendants: Any) -> Traversable:
        """What lies below it."""
        parts = [part for path in descendants for part in str(path).split("/")]
        path = self
        for part in parts:
            path = path._below(part)
        return path

    def __truediv__(self, child: Any) -> Traversable:
        return self.joinpath(child)

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:
        """Opens a file for reading."""
        content = self._content()
        if mode not in ("r", "rb", "rt"):
            raise ValueError(f"the cache can only be read, not opened with mode {mode!r}")
        if content is None:
            raise FileNotFoundError(2, "the cache holds no such file", str(self))
        file = io.BytesIO(content.encode())
        return file if mode == "rb" else io.TextIOWrapper(file, *args, **kwargs)

    def read_bytes(self) -> bytes:
        """The whole file."""
        with self.open("rb") as file:
            data: bytes = file.read()
        return data

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """The whole file, as text."""
        with self.open("r", encoding=encoding or "utf-8", errors=errors) as file:
            text: str = file.read()
        return text

    def _below(self, part: str) -> WorkspacePath:
        path = f"{self._path}/{part}" if self._path else part
        return WorkspacePath(self._source, self._root, path)

    def _content(self) -> str | None:
        try:
            module = self._source.get(self._path)
        except ValueError:
            return None  # No module can have such a path.
        return None if module is None else module.content

    def __str__(self) -> str:
        return self._root + self._path

    def __repr__(self) -> str:
        return f"<WorkspacePath {str(self)!r}>"
