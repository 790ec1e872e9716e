"""The workspace of the benchmark: real modules, Python's own, under a package of theirs."""

from __future__ import annotations

import os
import sysconfig

PACKAGE = "library"
BYTES = 1_070_000
# Of one module, so that there are many.
LARGEST = 28_000

# Whose modules fill it up; they don't import each other relatively.
PACKAGES = ("email", "http", "json", "logging", "urllib")

# They are slow, odd or noisy to import, or are about a platform that is not there.
LEFT_OUT = frozenset(
    "__future__ antigravity this idlelib turtle site sitecustomize usercustomize crypt nntplib "
    "msilib pty tty imp cgi cgitb asynchat asyncore smtpd lib2to3 __hello__ os zipimport codecs io abc "
    "telnetlib uu xdrlib pipes sndhdr imghdr chunk aifc sunau mailcap nturl2path ntpath pstats "
    "sre_compile sre_constants sre_parse webbrowser threading types enum re functools typing "
    "dataclasses contextlib collections weakref _weakrefset warnings linecache traceback".split()
)


def files() -> dict[str, str]:
    """About a megabyte in 80 modules and more, by path."""
    library = sysconfig.get_paths()["stdlib"]
    found = {f"{PACKAGE}/__init__.py": ""}
    size = 0
    entries = [*sorted(os.listdir(library))]
    for package in PACKAGES:
        entries += [f"{package}/{entry}" for entry in sorted(os.listdir(f"{library}/{package}"))]
    for entry in entries:
        name, extension = os.path.splitext(entry.replace("/", "_"))
        if extension != ".py" or name.startswith("_") or name in LEFT_OUT or "__" in name:
            continue
        with open(os.path.join(library, entry), encoding="utf-8") as file:
            source = file.read()
        if "from ." in source:
            continue
        if len(source) <= LARGEST and size + len(source) <= BYTES:
            found[f"{PACKAGE}/{name}.py"] = source
            size += len(source)
    return found


def names(paths: dict[str, str]) -> list[str]:
    """What a worker imports: each module by its name."""
    stems = (path.removesuffix(".py").removesuffix("/__init__") for path in paths)
    return [stem.replace("/", ".") for stem in stems]
