"""The files that the statements import."""

FILES: dict[str, str] = {
    "single.py": '"""A module at the top."""\nvalue = 1\n',
    "hidden.py": "value = 'a module hides what lies below'\n",
    "hidden/child.py": "",
    "both.py": "kind = 'module'\n",
    "both/__init__.py": "kind = 'package'\n",
    "shared/__init__.py": '"""Shared by all."""\n\nVERSION = 1\n',
    "shared/__main__.py": "import sys\nprint('main of', __name__, __package__, len(sys.argv))\n",
    "shared/halopsa.py": (
        '"""Tickets."""\n'
        "import functools\n\n\n"
        "class Client:\n"
        '    """Opens tickets."""\n\n'
        "    def __init__(self, number):\n"
        "        self.number = number\n\n"
        "    def open(self):  # a comment that getsource keeps\n"
        "        return 1 / self.number\n\n\n"
        "@functools.cache\n"
        "def ticket(number):\n"
        "    return Client(number)\n"
    ),
    "shared/relative.py": (
        "from . import halopsa, VERSION\n"
        "from .halopsa import Client as C\n"
        "from .sub import deep\n"
        "from .sub.deep import value\n"
    ),
    "shared/beyond.py": "from ... import nothing\n",
    "shared/sub/__init__.py": "from ..halopsa import Client\n",
    "shared/sub/deep.py": "value = 'deep'\n",
    "shared/broken.py": "x = 1\n\ndef f(:\n    pass\n",
    "shared/indent.py": "def f():\n  x = 1\n\ty = 2\n",
    "shared/raises.py": "def f():\n    raise ValueError('at import')\n\n\nf()\n",
    "shared/imports_broken.py": "import shared.broken\n",
    "shared/imports_raises.py": "from shared import raises\n",
    "shared/imports_missing.py": "import shared.nowhere\n",
    "shared/from_missing.py": "from shared import nowhere\n",
    "shared/optional.py": (
        "try:\n    import nowhere_at_all\nexcept ModuleNotFoundError as e:\n    found = e.name\n"
        "try:\n    from shared import nowhere\nexcept ImportError as e:\n    member = (e.name, str(e))\n"
    ),
    "shared/circular_a.py": "from shared import circular_b\nname = 'a'\n",
    "shared/circular_b.py": "import shared.circular_a\nname = 'b'\nlate = lambda: shared.circular_a.name\n",
    "shared/circular_c.py": "from shared.circular_d import d\nc = 1\n",
    "shared/circular_d.py": "from shared.circular_c import c\nd = 1\n",
    "shared/starred.py": "__all__ = ['a', 'sub']\na = 1\nb = 2\n",
    "shared/stars/__init__.py": "__all__ = ['one', 'two']\n",
    "shared/stars/one.py": "x = 1\n",
    "shared/stars/two.py": "x = 2\n",
    "shared/unlisted.py": "visible = 1\n_hidden = 2\n",
    "shared/lazy.py": (
        "def __getattr__(name):\n"
        "    if name == 'answer':\n        return 42\n"
        "    raise AttributeError(f'no {name} here')\n\n\n"
        "def __dir__():\n    return ['answer']\n"
    ),
    "shared/lazy_package/__init__.py": (
        "import importlib\n\n\n"
        "def __getattr__(name):\n"
        "    if name == 'part':\n        return importlib.import_module('.part', __name__)\n"
        "    raise AttributeError(name)\n"
    ),
    "shared/lazy_package/part.py": "loaded = __name__\n",
    "shared/bom.py": "\ufefftext = 'ä€🦀'\n",
    "shared/bom_and_cookie.py": "\ufeff# -*- coding: utf-8 -*-\ntext = 'ä'\n",
    "shared/cookie.py": "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\ntext = 'ä€'\n",
    "shared/crlf.py": "x = 1\r\ny = '''a\r\nb'''\r\n",
    "shared/no_newline.py": "x = 1",
    "shared/empty.py": "",
    "shared/nulls.py": "x = 1\0\n",
    "shared/form_feed.py": "x = 1\n\f\ny = 2\n",
    "shared/futures.py": "from __future__ import annotations\n\n\ndef f(x: Nowhere) -> Never: ...\n",
    "shared/unicode_näme.py": "value = 'ü'\n",
    "shared/my-mod.py": "value = 'dash'\n",
    "shared/file_relative.py": "import os\nhere = os.path.dirname(__file__)\n",
    "shared/threads.py": "import time\ncount = globals().get('count', 0) + 1\ntime.sleep(0.05)\n",
    "shared/tool.py": (
        "import sys\nfrom shared import VERSION\n\n\ndef main():\n    return VERSION\n\n\n"
        "if __name__ == '__main__':\n    print('run', __spec__.name, __file__, main())\n"
    ),
    "shared/exits.py": "raise SystemExit(3)\n",
    "shared/replaces.py": "import sys, types\nsys.modules[__name__] = types.SimpleNamespace(mark=1)\n",
    "shared/removes.py": "import sys\ndel sys.modules[__name__]\n",
    "shared/enums.py": (
        "import dataclasses, enum\n\n\nclass Color(enum.Enum):\n    RED = 1\n\n\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n    color: Color = Color.RED\n"
    ),
    "shared/docs.py": (
        '"""\n>>> double(2)\n4\n"""\n\n\ndef double(x):\n'
        '    """\n    >>> double(3)\n    6\n    """\n    return 2 * x\n'
    ),
    "shared/appends/__init__.py": "__path__.append(__path__[0] + '/more')\n",
    "shared/appends/more/extra.py": "value = 'found in the second directory'\n",
    "shared/extends/__init__.py": "import pkgutil\n__path__ = pkgutil.extend_path(__path__, __name__)\n",
    "shared/extends/part.py": "value = 1\n",
    "data/__init__.py": "",
    "data/one.py": "ONE = 1  # ä\n",
    "data/below/__init__.py": "",
    "data/below/two.py": "TWO = 2\n",
    "namespace/part.py": "value = 'in a namespace'\n",
    "namespace/inner/leaf.py": "from .. import part\nvalue = part.value\n",
    "namespace/inner/package/__init__.py": "",
    "json.py": "raise AssertionError('the standard library was replaced')\n",
    "workflows/main.py": "from shared.halopsa import ticket\n\n\ndef run(n):\n    return ticket(n).open()\n",
}

