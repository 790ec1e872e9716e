"""Loads a module whose source came from the cache, as CPython's own loader does from a disk."""

from __future__ import annotations

import io
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from ._native import CachedModule

if TYPE_CHECKING:
    from .finder import Finder
    from .source import Source

__all__ = ["Loader", "WorkspaceSpec"]

class WorkspaceSpec(ModuleSpec):
    """A spec whose module has a ``__file__`` and no ``__cached__``: no disk holds its bytecode."""

    @property
    def cached(self) -> str | None:
        """None, always."""
        return None

    @cached.setter
    def cached(self, value: str | None) -> None:
        pass


class Loader(SourceFileLoader):
    """Loads one module. It holds the source that it was made for, so that tracebacks show that one.

    To all who ask it is CPython's own loader of source files; but its files are on no disk, and have
    no bytecode.
    """

    def __init__(
        self,
        fullname: str,
        relative: str,
        sha256: str,
        holder: Source | CachedModule,
        finder: Finder,
    ) -> None:
        self.name = fullname
        self.path = finder.root + relative
        self.relative = relative
        self.sha256 = sha256
        # The snapshot that has the source, or the source itself.
        self._holder = holder
        self._finder = finder

    def exec_module(self, module: ModuleType) -> None:
        """Executes a module, which is told the hash of its source."""
        module.__dict__["__content_hash__"] = self.sha256
        linecache: Any = sys.modules.get("linecache")
        if linecache is not None and self.path in linecache.cache:
            # Tracebacks would go on showing the lines of what was loaded before.
            linecache.cache.pop(self.path, None)
        SourceFileLoader.exec_module(self, module)

    def get_code(self, fullname: str | None = None) -> CodeType:
        """The module's code object: inherited, or compiled now."""
        if fullname != self.name:
            self._check(fullname)
        code = self._finder.codes.get(self.path, self.sha256)
        if code is None:
            code = self.compile()
            self._finder.codes.put(self.path, self.sha256, code)
        return code

    def content(self) -> str:
        """The text that it loads."""
        holder = self._holder
        module = holder if isinstance(holder, CachedModule) else holder.get(self.relative)
        if module is None:
            raise FileNotFoundError(2, "the cache holds no such file", self.path)
        return module.content

    def compile(self) -> CodeType:
        """Compiles the text, never bytes: a coding cookie would decode those a second time."""
        text: Any = self.content().removeprefix("\ufeff")
        code: CodeType = self.source_to_code(text, self.path)
        return code

    def get_source(self, fullname: str | None = None) -> str:
        """The source that is loaded, with the newlines that CPython makes of those of a file."""
        self._check(fullname)
        text = self.content().removeprefix("\ufeff")
        return io.IncrementalNewlineDecoder(None, translate=True).decode(text)

    def get_data(self, path: str) -> bytes:
        """The bytes of any module, by its file name: for ``pkgutil.get_data``."""
        relative = path.removeprefix(self._finder.root)
        if relative == self.relative:
            return self.content().encode()
        module = None
        if relative != path:
            try:
                module = self._finder.source().get(relative)
            except ValueError:
                pass  # No module can have such a path.
        if module is None:
            raise FileNotFoundError(2, "the cache holds no such file", path)
        return module.content.encode()

    def get_resource_reader(self, name: str | None = None) -> Any:
        """What ``importlib.resources`` reads the module's directory with."""
        self._check(name)
        from .resources import WorkspaceReader

        directory = self.relative.rpartition("/")[0]
        return WorkspaceReader(self._finder.source(), self._finder.root, directory)

    def _check(self, fullname: str | None) -> None:
        self.get_filename(fullname)  # refuses the name of another module

    def __repr__(self) -> str:
        return f"<Loader of {self.path!r}>"

    def path_stats(self, path: Any) -> Any:
        """There is no such file, for those who look for its bytecode."""
        raise FileNotFoundError(2, "the cache holds no times of files", path)

    def set_data(self, path: Any, data: Any, *, _mode: int = 0o666) -> None:
        """Writes nothing, wherever it is asked to."""


def _hide_frames(function: Any) -> None:
    """Has CPython leave a function out of tracebacks, as it does with its own import system: it
    goes by the file name of the code."""
    hidden = SourceFileLoader.get_code.__code__.co_filename
    function.__code__ = function.__code__.replace(co_filename=hidden)


_hide_frames(Loader.exec_module)
_hide_frames(Loader.get_code)
_hide_frames(Loader.compile)
_hide_frames(Loader.content)
