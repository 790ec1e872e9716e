"""Answers what CPython's own finder finds in a directory; driven by tests/api/pathfinder.rs.

A line of JSON each way: a list of names; for each name [kind, path], or null. Without a directory
it says, once, where Python's own library is.
"""

import importlib
import json
import os
import sys
import sysconfig
import types
from importlib.machinery import PathFinder, SourceFileLoader

# Only the last segment of a name matters to a finder. Below a package that nobody has, no module
# that this program needs is in the way.
TOP = "bifrost_workspace"


def package(name, locations):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = locations


def find(name, asked):
    """Asks as Python does: parent by parent, each within the path of the one above."""
    if name in asked:
        return asked[name]
    parent, _, _ = name.rpartition(".")
    spec = None
    if parent == TOP or (above := find(parent, asked)) and above.submodule_search_locations is not None:
        spec = PathFinder.find_spec(name, sys.modules[parent].__path__)
    if spec is not None and spec.submodule_search_locations is not None:
        package(name, spec.submodule_search_locations)
    asked[name] = spec
    return spec


def told(spec, root):
    if spec is None:
        return None
    locations = spec.submodule_search_locations
    if spec.loader is None or not spec.has_location:
        (location,) = locations
        return ["namespace", os.path.relpath(location, root)]
    assert type(spec.loader) is SourceFileLoader, spec
    kind = "module" if locations is None else "package"
    return [kind, os.path.relpath(spec.origin, root)]


def answer(names, root):
    importlib.invalidate_caches()
    package(TOP, [root])
    asked = {}
    answers = [told(find(f"{TOP}.{name}", asked), root) for name in names]
    for name in [name for name in sys.modules if name.split(".")[0] == TOP]:
        del sys.modules[name]
    return answers


if len(sys.argv) == 1:
    print(sysconfig.get_path("stdlib"))
for line in sys.stdin if len(sys.argv) > 1 else ():
    print(json.dumps(answer(json.loads(line), sys.argv[1])), flush=True)
