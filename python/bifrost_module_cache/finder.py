"""Finds the workspace's modules for Python's import system."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

from .loader import Loader, WorkspaceSpec
from .source import Found, Source, children

if TYPE_CHECKING:
    from types import ModuleType

    from ._native import CachedModule, Snapshot
    from .code_cache import CodeCache

__all__ = ["EntryFinder", "Finder", "is_installed"]

# A workspace can't replace these, whatever it holds.
_RESERVED = sys.stdlib_module_names | frozenset(sys.builtin_module_names) | {"__main__"}


class Finder:
    """Finds modules of the workspace, in front of all other finders of ``sys.meta_path``.

    It goes first so that an empty directory of the same name on ``sys.path`` hides nothing. It gives
    way to the standard library, and at the top level to whatever is installed.
    """

    def __init__(self, root: str, source: Callable[[], Source], codes: CodeCache) -> None:
        self.root = root
        self.source = source
        self.codes = codes
        # By directory: how names in it begin.
        self._prefixes: dict[str, str] = {}
        self._places: tuple[object, ...] = ()
        self._installed: dict[str, bool] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of a module of ours, or None: then the next finder tries."""
        if path is not None:
            return self._find_below(path, fullname, self.source())
        if fullname in _RESERVED:
            return None
        return self._find_at_top(fullname, self.source())

    def _find_at_top(self, fullname: str, source: Source) -> ModuleSpec | None:
        found = source.find(fullname)
        if found is None or self._gives_way(fullname):
            return None
        return self._spec(fullname, found, source)

    def _find_below(
        self, path: Iterable[str], fullname: str, source: Source
    ) -> ModuleSpec | None:
        for entry in path:
            # Names below another finder's package are not ours.
            if isinstance(entry, str) and entry.startswith(self.root):
                spec = self.find_in(entry, fullname, source)
                if spec is not None:
                    return spec
        return None

    def find_in(self, entry: str, fullname: str, source: Source) -> ModuleSpec | None:
        """The spec of a name in one directory, which is not always that of its package: a package
        may change its ``__path__``."""
        prefix = self._prefixes.get(entry)
        if prefix is None:
            directory = entry[len(self.root) :].strip("/")
            if "." in directory:
                return None  # Not to be said as a name.
            prefix = f"{directory.replace('/', '.')}." if directory else ""
            self._prefixes[entry] = prefix
        found = source.find(prefix + fullname.rpartition(".")[2])
        return None if found is None else self._spec(fullname, found, source)

    def _spec(self, fullname: str, found: Found, source: Source) -> ModuleSpec:
        kind, path, sha256, module = found
        if sha256 is None:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [self.root + path]
            return spec
        is_package = kind == "package"
        loader = self.loader(fullname, path, sha256, module or source)
        spec = WorkspaceSpec(fullname, loader, origin=loader.path, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [loader.path.rpartition("/")[0]]
        return spec

    def loader(
        self, fullname: str, path: str, sha256: str, holder: Source | CachedModule
    ) -> Loader:
        """What loads a module."""
        return Loader(fullname, path, sha256, holder, self)

    def _gives_way(self, name: str) -> bool:
        """Whether a top-level name is installed. Remembered, as CPython remembers directories, until
        ``importlib.invalidate_caches()``, or until ``sys.path`` or ``sys.meta_path`` are changed."""
        places = (*sys.path, *map(id, sys.meta_path))
        if places != self._places:
            self._places = places
            self._installed = {}
        answer = self._installed.get(name)
        if answer is None:
            answer = self._installed[name] = is_installed(name)
        return answer

    def rehearse(self, snapshot: Snapshot, names: Iterable[str]) -> None:
        """Has a process that forks do once what each of its children would do anew: find out what is
        installed, and find the modules, which CPython then adapts the code here to."""
        for name in names:
            parent = name.rpartition(".")[0]
            if parent:
                self._find_below([self.root + parent.replace(".", "/")], name, snapshot)
            elif name not in _RESERVED:
                self._find_at_top(name, snapshot)

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """The workspace's top level, for ``pkgutil``."""
        return self.modules_in(self.root, prefix)

    def modules_in(self, entry: str, prefix: str) -> Iterator[tuple[str, bool]]:
        """Names of modules in a directory, and whether each is a package: for ``pkgutil``."""
        source = self.source()
        directory = entry[len(self.root) :].rstrip("/")
        found: dict[str, bool] = {}
        for name, is_directory in children(source, directory).items():
            if is_directory and "." not in name:
                path = f"{directory}/{name}" if directory else name
                if "__init__.py" in children(source, path):
                    found[name] = True
            if name.endswith(".py") and name != "__init__.py":
                found.setdefault(name.removesuffix(".py"), False)
        for name, is_package in sorted(found.items()):
            if "." not in name:
                yield prefix + name, is_package

    def path_hook(self, entry: str) -> EntryFinder:
        """For ``sys.path_hooks``: directories below our root are ours, and no disk's."""
        if isinstance(entry, str) and (entry + "/").startswith(self.root):
            return EntryFinder(self, entry if entry.startswith(self.root) else self.root)
        raise ImportError("it is not a directory of the workspace", path=entry)

    def invalidate_caches(self) -> None:
        """Forgets what is installed. Of the workspace nothing has to be forgotten: what is asked is
        current, or a snapshot on purpose."""
        self._places = ()

    def is_ours(self, module: object) -> bool:
        """Whether a module was found here: by its loader, or by where its parts are looked for."""
        try:
            # What is loaded lazily would be loaded now.
            spec = object.__getattribute__(module, "__spec__")
        except AttributeError:
            return False
        if isinstance(spec, WorkspaceSpec):
            return isinstance(spec.loader, Loader) and spec.loader.path.startswith(self.root)
        locations = getattr(spec, "submodule_search_locations", None) or ()
        return any(isinstance(entry, str) and entry.startswith(self.root) for entry in locations)

    def __repr__(self) -> str:
        return f"<Finder of {self.root!r}>"


class EntryFinder:
    """Finds modules in one directory: what ``pkgutil`` and a ``__path__`` that was changed need."""

    def __init__(self, finder: Finder, entry: str) -> None:
        self.path = entry
        self._finder = finder

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a name in this directory, or None."""
        return self._finder.find_in(self.path, fullname, self._finder.source())

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """The modules in it."""
        return self._finder.modules_in(self.path, prefix)

    def invalidate_caches(self) -> None:
        """Nothing to do."""

    def __repr__(self) -> str:
        return f"<EntryFinder of {self.path!r}>"


def is_installed(name: str) -> bool:
    """Whether any other finder has a module of that name with something to load. A directory
    without an ``__init__.py`` has not."""
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        if find_spec is None or isinstance(finder, Finder):
            continue
        spec = find_spec(name, None)
        if spec is not None and spec.loader is not None:
            return True
    return False
