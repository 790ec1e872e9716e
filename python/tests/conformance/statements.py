"""What is executed, by name. What it prints, and what it raises, must be the same."""

STATEMENTS: dict[str, str] = {
    "module_attributes": """
        import shared.halopsa as m
        for key in ("__name__", "__file__", "__package__", "__doc__"):
            print(key, getattr(m, key))
        print(hasattr(m, "__path__"), m.__builtins__ is __builtins__.__dict__)
        print(sorted(k for k in vars(m) if k not in ("__cached__", "__content_hash__")))
    """,
    "package_attributes": """
        import shared.sub as p
        for key in ("__name__", "__file__", "__package__", "__path__", "__doc__"):
            print(key, getattr(p, key))
        import shared
        print(shared.sub is p, shared.VERSION)
    """,
    "spec_of_a_module": """
        import shared.halopsa as m
        s = m.__spec__
        print(s.name, s.origin, s.has_location, s.parent, s.submodule_search_locations)
        print(s.loader is m.__loader__, s.loader.name, s.loader.path)
    """,
    "spec_of_a_package": """
        import shared
        s = shared.__spec__
        print(s.name, s.origin, s.has_location, s.parent, s.submodule_search_locations)
    """,
    "spec_is_found_without_import": """
        import importlib.util, sys
        s = importlib.util.find_spec("shared.sub.deep")
        print(s.name, s.origin, sorted(n for n in sys.modules if n.startswith("shared")))
        print(importlib.util.find_spec("shared.nowhere"), importlib.util.find_spec("nowhere_at_all"))
        try:
            importlib.util.find_spec("single.child")
        except ModuleNotFoundError as e:
            print(e, e.name)
    """,
    "a_top_level_module": "import single; print(single.value, single.__file__, single.__package__)",
    "a_package_hides_a_module": "import both; print(both.kind, both.__file__)",
    "a_module_hides_a_directory": "import hidden.child",
    "relative_imports": """
        from shared import relative as r
        print(r.halopsa.__name__, r.C.__module__, r.deep.__name__, r.value, r.VERSION)
    """,
    "a_relative_import_beyond_the_top": "import shared.beyond",
    "from_import_of_a_submodule": "from shared import sub; from shared.sub import deep; print(deep.value)",
    "import_as": "import shared.sub.deep as d, shared.halopsa as h; print(d.value, h.Client.__module__)",
    "star_import_by_all": "from shared.starred import *; print(a, 'b' in globals())",
    "star_import_of_submodules": "from shared.stars import *; print(one.x, two.x)",
    "star_import_without_all": "from shared.unlisted import *; print(visible, '_hidden' in globals())",
    "module_getattr": """
        import shared.lazy as m
        print(m.answer, dir(m))
        from shared.lazy import answer
        print(answer)
        m.nothing
    """,
    "module_getattr_in_a_from_import": "from shared.lazy import nothing",
    "a_lazy_package": "import shared.lazy_package as p; print(p.part.loaded); from shared.lazy_package import part",
    "a_missing_top_level_module": "import nowhere_at_all",
    "a_missing_submodule": "import shared.nowhere",
    "a_missing_submodule_of_a_missing_package": "import shared.nowhere.deeper",
    "a_missing_member": "from shared import nowhere",
    "a_missing_module_is_imported_by_ours": "import shared.imports_missing",
    "a_missing_member_is_imported_by_ours": "import shared.from_missing",
    "optional_imports": "import shared.optional as o; print(o.found, o.member)",
    "a_child_of_a_module": "import shared.halopsa.child",
    "circular_imports": "import shared.circular_a as a; print(a.circular_b.late(), a.name)",
    "circular_from_imports": "import shared.circular_c",
    "a_syntax_error": """
        try:
            import shared.broken
        except SyntaxError as e:
            print(e.filename, e.lineno, e.offset, e.text, e.msg)
        import sys
        print("shared.broken" in sys.modules)
    """,
    "a_syntax_error_s_traceback": "import shared.imports_broken",
    "an_indentation_error": "import shared.indent",
    "a_traceback_of_an_import": "import shared.imports_raises",
    "a_traceback_of_a_call": "from workflows.main import run; run(0)",
    "a_failed_import_leaves_nothing": """
        import sys
        for turn in (1, 2):
            try:
                import shared.imports_raises
            except ValueError as e:
                print(e, sorted(n for n in sys.modules if n.startswith("shared")))
    """,
    "getsource": """
        import inspect, shared.halopsa as m
        print(inspect.getsource(m.Client.open))
        print(inspect.getsource(m.Client))
        print(inspect.getsource(m) == m.__loader__.get_source("shared.halopsa"))
        print(inspect.getsourcefile(m.Client), inspect.getfile(m), inspect.getmodule(m.Client))
        print(inspect.getsourcelines(m.ticket.__wrapped__), inspect.getdoc(m.Client))
        print(inspect.getcomments(m.Client.open), inspect.getmodulename(m.__file__))
    """,
    "linecache": """
        import linecache, shared.halopsa as m
        print(linecache.getline(m.__file__, 1, vars(m)))
    """,
    "loader_methods": """
        import shared, shared.halopsa as m
        for module in (shared, m):
            l = module.__loader__
            print(l.get_filename(module.__name__), l.is_package(module.__name__))
            print(repr(l.get_source(module.__name__)), l.get_code(module.__name__).co_filename)
            print(l.get_data(module.__file__))
        for method in ("get_source", "get_filename", "get_code"):
            try:
                getattr(m.__loader__, method)("other")
            except ImportError as e:
                print(method, e, e.name)
        try:
            m.__loader__.get_data(m.__file__ + ".nothing")
        except OSError as e:
            print(type(e).__name__)
    """,
    "loader_s_classes": """
        import importlib.abc as abc, shared
        print([isinstance(shared.__loader__, getattr(abc, n)) for n in ("Loader", "InspectLoader", "ExecutionLoader")])
    """,
    "bom": "import shared.bom as m; print(m.text, repr(m.__loader__.get_source('shared.bom')))",
    "bom_and_cookie": "import shared.bom_and_cookie as m; print(m.text)",
    "cookie": "import shared.cookie as m; print(m.text, m.__loader__.get_data(m.__file__))",
    "crlf": """
        import shared.crlf as m, inspect
        print(m.x, repr(m.y), repr(m.__loader__.get_source("shared.crlf")), inspect.getsource(m) == m.__loader__.get_source("shared.crlf"))
    """,
    "no_newline": "import shared.no_newline as m; print(m.x, repr(m.__loader__.get_source(m.__name__)))",
    "empty": "import shared.empty as m; print(m.__doc__, m.__file__)",
    "null_bytes": """
        try:
            import shared.nulls
        except Exception as e:
            print(type(e).__name__)
    """,
    "form_feed": "import shared.form_feed as m; print(m.y, repr(m.__loader__.get_source(m.__name__)))",
    "future_annotations": "from shared.futures import f; print(f.__annotations__)",
    "unicode_names": "import shared.unicode_näme as m; print(m.value, m.__file__)",
    "names_that_are_no_identifiers": """
        import importlib
        print(importlib.import_module("shared.my-mod").value)
        for name in ("shared..halopsa", ".halopsa", "shared.", "", "shared/halopsa"):
            try:
                importlib.import_module(name)
            except Exception as e:
                print(type(e).__name__, e)
    """,
    "relative_import_module": """
        import importlib
        print(importlib.import_module(".halopsa", "shared").__name__, importlib.import_module("..single", "a.b.c") if False else "")
        print(__import__("shared.halopsa").__name__, __import__("shared", fromlist=["halopsa"]).halopsa.__name__)
    """,
    "file_is_where_it_says": "import shared.file_relative as m; print(m.here)",
    "reload": """
        import importlib, shared.halopsa as m
        m.extra = 1
        old = m.Client
        again = importlib.reload(m)
        print(again is m, m.extra, m.Client is old, m.__spec__.name)
    """,
    "reload_of_a_package": "import importlib, shared; importlib.reload(shared); print(shared.VERSION, shared.__path__)",
    "invalidate_caches": "import importlib; importlib.invalidate_caches(); import shared; print(shared.VERSION)",
    "run_module": """
        import runpy
        result = runpy.run_module("shared.tool", run_name="__main__")
        print(result["__name__"], result["__file__"], result["__package__"], result["__spec__"].name)
    """,
    "run_module_of_a_package": "import runpy; runpy.run_module('shared', run_name='__main__', alter_sys=True)",
    "run_module_that_is_missing": "import runpy; runpy.run_module('shared.nowhere')",
    "run_module_of_a_package_without_main": "import runpy; runpy.run_module('shared.sub')",
    "system_exit": "import shared.exits",
    "a_module_that_replaces_itself": "import shared.replaces as m; print(m.mark)",
    "a_module_that_removes_itself": "import shared.removes",
    "pickle": """
        import pickle
        from shared.enums import Color, Point
        from shared.halopsa import ticket
        data = pickle.dumps((Point(1), Color.RED, ticket))
        point, color, function = pickle.loads(data)
        print(point, color is Color.RED, function is ticket, Point.__module__)
    """,
    "unpickling_imports": r"""
        import pickle, sys
        print(pickle.loads(b"cshared.enums\nColor\n."), "shared.enums" in sys.modules)
    """,
    "copy": "import copy, shared.enums as m; print(copy.deepcopy(m.Point(2)))",
    "doctest": "import doctest, shared.docs; print(doctest.testmod(shared.docs))",
    "iter_modules_of_packages": """
        import pkgutil, shared, data, namespace
        for package in (shared, data, namespace):
            print([(i.name, i.ispkg) for i in pkgutil.iter_modules(package.__path__, package.__name__ + ".")])
    """,
    "walk_packages": """
        import pkgutil, data
        print([i.name for i in pkgutil.walk_packages(data.__path__, "data.")])
    """,
    "module_finder_of_an_info": """
        import pkgutil, data
        info = next(iter(pkgutil.iter_modules(data.__path__)))
        print(info.module_finder.find_spec("one").origin if info.name == "one" else info.module_finder.find_spec("below").origin)
    """,
    "pkgutil_get_data": """
        import pkgutil
        print(pkgutil.get_data("data", "one.py"), pkgutil.get_data("data", "below/two.py"))
        try:
            pkgutil.get_data("data", "nothing.py")
        except OSError as e:
            print(type(e).__name__, e.errno)
    """,
    "pkgutil_resolve_name": "import pkgutil; print(pkgutil.resolve_name('shared.halopsa:Client'), pkgutil.resolve_name('shared.sub.deep'))",
    "resources": """
        import importlib.resources as r
        root = r.files("data")
        print(sorted(p.name for p in root.iterdir() if p.name != "__pycache__"))
        one = root / "one.py"
        print(one.name, one.is_file(), one.is_dir(), one.read_text(encoding="utf-8"), one.read_bytes())
        below = root.joinpath("below", "two.py")
        print(below.is_file(), (root / "below").is_dir(), (root / "nothing").is_file(), (root / "nothing").is_dir())
        print(r.files("data.below").joinpath("two.py").read_text(encoding="utf-8"))
        with one.open("r", encoding="utf-8") as f:
            print(f.readline())
        with r.as_file(one) as path:
            print(path.read_bytes())
        try:
            (root / "nothing").read_text(encoding="utf-8")
        except FileNotFoundError as e:
            print("FileNotFoundError")
    """,
    "resources_of_a_module": "import importlib.resources as r, shared.halopsa; print(r.is_resource('data', 'one.py'), r.is_resource('data', 'x.py'))",
    "namespace": """
        import namespace, namespace.inner.leaf as leaf
        print(leaf.value, list(namespace.__path__), namespace.__package__, getattr(namespace, "__file__", None))
        s = namespace.__spec__
        print(s.name, s.origin, s.has_location, list(s.submodule_search_locations), s.parent)
        print(leaf.__package__, namespace.inner.__name__, namespace.inner.package.__name__) if hasattr(namespace.inner, "package") else print("no package yet")
        import namespace.inner.package
        print(namespace.inner.package.__path__)
    """,
    "a_missing_module_of_a_namespace": "import namespace.nowhere",
    "find_spec_of_a_namespace": """
        import importlib.util
        s = importlib.util.find_spec("namespace.inner")
        print(s.name, s.loader is None, list(s.submodule_search_locations))
    """,
    "a_path_that_was_appended_to": "from shared.appends import extra; print(extra.value, extra.__file__)",
    "a_path_that_was_extended": "from shared.extends import part; print(part.value)",
    "the_standard_library_stays": "import json; print(json.dumps([1]), 'lib' in json.__file__)",
    "threads_import_the_same_module_once": """
        import threading
        found = []
        def load():
            import shared.threads as m
            found.append(m.count)
        threads = [threading.Thread(target=load) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(found)
    """,
    "threads_import_a_circle": """
        import importlib, threading
        found = []
        def load(name):
            try:
                importlib.import_module(name)
            except AttributeError:
                pass  # One thread meets the other one half way, on a disk too.
            found.append(name)
        threads = [threading.Thread(target=load, args=("shared.circular_" + n,)) for n in "ab"]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(sorted(found))
    """,
    "module_from_spec": """
        import importlib.util
        s = importlib.util.find_spec("shared.halopsa")
        m = importlib.util.module_from_spec(s)
        s.loader.exec_module(m)
        print(m.Client, m.__file__, m.__spec__ is s)
    """,
    "lazy_loader": """
        import importlib.util, sys
        s = importlib.util.find_spec("shared.halopsa")
        s.loader = importlib.util.LazyLoader(s.loader)
        m = importlib.util.module_from_spec(s)
        sys.modules["shared.halopsa"] = m
        s.loader.exec_module(m)
        print(m.Client.__module__, m.__file__)
    """,
    "a_class_in_a_traceback_group": """
        from workflows.main import run
        try:
            run(0)
        except ZeroDivisionError as e:
            raise ExceptionGroup("several", [e]) from None
    """,
    "ast_of_a_source": "import ast, inspect, shared.halopsa as m; print([type(n).__name__ for n in ast.parse(inspect.getsource(m)).body])",
    "modules_in_repr": "import shared, shared.halopsa, namespace; print(repr(shared), repr(shared.halopsa))",
    "warnings_name_the_line": """
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import shared.halopsa as m
            exec(compile("import warnings; warnings.warn('x')", m.__file__, "exec"), vars(m))
        print(caught[0].filename, caught[0].lineno)
    """,
    "type_hints": "import typing, shared.enums as m; print(typing.get_type_hints(m.Point))",
    "mocks": "import unittest.mock as mock; from workflows import main\nwith mock.patch('workflows.main.ticket') as t: print(main.run(0) is t.return_value.open.return_value)",
    "modulefinder_s_view": "import importlib.machinery as m, shared; print(shared.__spec__.loader_state, m.all_suffixes()[-1:])",
    "zipimport_is_untouched": "import zipimport, sys; print(any(h is zipimport.zipimporter for h in sys.path_hooks))",
}
