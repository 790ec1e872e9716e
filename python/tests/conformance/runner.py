"""Executes statements, each in a forked child, over a workspace on a disk or over the cache.

`runner.py disk DIRECTORY` or `runner.py execution|live URL`; statements come as JSON, answers go as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import os
import sys
import textwrap
import traceback
import warnings

ROOT = "/bifrost/"


def execute(code: str) -> str:
    """What it prints and how it ends."""
    output = io.StringIO()
    # As a program has it: __main__ is where it runs.
    space = {"__name__": "__main__", "__builtins__": __builtins__}
    with contextlib.redirect_stdout(output):
        try:
            exec(compile(textwrap.dedent(code), "<statement>", "exec"), space)
        except SystemExit as error:
            print("exit", error.code)
        except BaseException as error:
            linecache.checkcache()
            text = "".join(traceback.format_exception(error))
            # Frames of this file are the runner's.
            print(text.replace(text[text.find('  File "' + __file__) : text.find('  File "<st')], ""))
    return output.getvalue()


def in_child(code: str) -> str:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        try:
            answer = execute(code)
        except BaseException:
            answer = traceback.format_exc()
        with os.fdopen(writing, "w", encoding="utf-8", errors="backslashreplace") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.wait()
    return answer


def main() -> None:
    mode, place = sys.argv[1:]
    statements = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True
    if mode == "disk":
        sys.path.insert(0, place)
        answers = {name: in_child(code) for name, code in statements.items()}
        for name, answer in answers.items():
            answers[name] = answer.replace(place + "/", ROOT)
    else:
        from bifrost_module_cache import Modules

        modules = Modules(place)
        modules.install(root=ROOT)
        if mode == "execution":
            with modules.execution():
                answers = {name: in_child(code) for name, code in statements.items()}
        else:
            answers = {name: in_child(code) for name, code in statements.items()}
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
