"""Which modules a code object imports, as far as its bytecode tells."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType

__all__ = ["imported_names"]

_IMPORT = dis.opmap["IMPORT_NAME"]


def imported_names(code: CodeType, package: str) -> Iterator[str]:
    """Names that the module may import, in the functions and classes too; of ``from a import b``,
    ``a`` and ``a.b``, because ``b`` may be a submodule.

    ``package`` is what relative imports start from. What is imported by a name that is computed can't
    be seen.
    """
    waiting = [code]
    while waiting:
        code = waiting.pop()
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        if _IMPORT not in code.co_code[::2]:
            continue  # Spares most of them to be disassembled.
        constants: list[object] = [None, None]
        for instruction in dis.get_instructions(code):
            if instruction.opname.startswith("LOAD_"):
                # The last two before an import are its level and what it takes from the module.
                constants = [constants[1], instruction.argval]
            elif instruction.opcode == _IMPORT:
                level, members = constants
                name = absolute(instruction.argval, level, package)
                if name is not None:
                    yield name
                    if isinstance(members, tuple):
                        yield from (f"{name}.{member}" for member in members if member != "*")


def absolute(name: str, level: object, package: str) -> str | None:
    """What ``from ..name import`` in a package means; None if it goes beyond the top."""
    if not isinstance(level, int) or level == 0:
        return name
    base = package.rsplit(".", level - 1)
    if not package or len(base) < level:
        return None
    return f"{base[0]}.{name}" if name else base[0]
