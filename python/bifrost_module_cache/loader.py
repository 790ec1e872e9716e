"""Loads a module whose source came from the cache, as CPython's own loader does from a disk."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from ._native import CachedModule

if TYPE_CHECKING:
    from .code_cache import CodeCache
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

    To all who ask it is CPython's own loader of source files, whose ``exec_module`` it uses, so
    that its frames are left out of tracebacks; but its files are on no disk, and have no bytecode.
    """

    def __init__(
        self,
        fullname: str,
        module: CachedModule,
        root: str,
        codes: CodeCache,
        source: Callable[[], Source],
    ) -> None:
        super().__init__(fullname, root + module.path)
        self._module = module
        self._root = root
        self._codes = codes
        self._source = source

    @property
    def module(self) -> CachedModule:
        """What it loads."""
        return self._module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module that knows the hash of its source."""
        module = ModuleType(spec.name)
        module.__dict__["__content_hash__"] = self._module.sha256
        return module

    def get_code(self, fullname: str | None = None) -> CodeType:
        """The module's code object: inherited, or compiled now."""
        self._check(fullname)
        sha256, filename = self._module.sha256, self.path
        module = sys.modules.get(self.name)
        if module is not None and getattr(module, "__loader__", None) is self:
            # A reload has kept the module, with the hash of its old source, and tracebacks would
            # show the lines of that.
            module.__dict__["__content_hash__"] = sha256
            linecache: Any = sys.modules.get("linecache")
            if linecache is not None:
                linecache.cache.pop(filename, None)
        code = self._codes.get(filename, sha256)
        if code is None:
            code = self.compile()
            self._codes.put(filename, sha256, code)
        return code

    def compile(self) -> CodeType:
        """Compiles the text, never bytes: a coding cookie would decode those a second time."""
        text: Any = self._module.content.removeprefix("\ufeff")
        code: CodeType = self.source_to_code(text, self.path)
        return code

    def get_source(self, fullname: str | None = None) -> str:
        """The source that is loaded, with the newlines that CPython makes of those of a file."""
        self._check(fullname)
        text = self._module.content.removeprefix("\ufeff")
        return io.IncrementalNewlineDecoder(None, translate=True).decode(text)

    def get_data(self, path: str) -> bytes:
        """The bytes of any module, by its file name: for ``pkgutil.get_data``."""
        relative = path.removeprefix(self._root)
        module = None
        if relative == self._module.path:
            module = self._module
        elif relative != path:
            try:
                module = self._source().get(relative)
            except ValueError:
                pass  # No module can have such a path.
        if module is None:
            raise FileNotFoundError(2, "the cache holds no such file", path)
        return module.content.encode()

    def get_resource_reader(self, name: str | None = None) -> Any:
        """What ``importlib.resources`` reads the module's directory with."""
        self._check(name)
        from .resources import WorkspaceReader

        directory = self._module.path.rpartition("/")[0]
        return WorkspaceReader(self._source(), self._root, directory)

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


_hide_frames(Loader.get_code)
_hide_frames(Loader.compile)
