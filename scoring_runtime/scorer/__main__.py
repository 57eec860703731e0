"""The start of a scorer in the USER's interpreter: `python .../scorer/__main__.py CHANNEL_FD PROGRESS_FD ARENA_FD`.

Four things must hold before any code of the user runs. Our folder is not on sys.path, where the interpreter put it. Our
modules are known under one private name, so that a user's own frames.py or loop.py is never shadowed. They have builtins
of their own: what user code puts into the place of len() or open() is for user code. And no .pyc is written into our
folder: another interpreter than ours runs here, perhaps as another user.

A process that the user's code spawns imports this file again, under another name, and must find nothing to do.
"""

import sys

if __name__ == "__main__":
    _HERE = __file__.rpartition("/")[0]
    if sys.path and sys.path[0] == _HERE:  # absent with -P or PYTHONSAFEPATH
        del sys.path[0]

    import builtins
    import importlib
    import importlib.util
    from importlib.machinery import FileFinder, SourceFileLoader
    from types import ModuleType

    _PACKAGE = "_scoring_runtime_scorer"
    _BUILTINS = dict(vars(builtins))

    class _Loader(SourceFileLoader):
        """Loads our modules, with builtins of their own."""

        def exec_module(self, module: ModuleType) -> None:
            module.__dict__["__builtins__"] = _BUILTINS
            super().exec_module(module)

    def _find_ours(folder: str) -> FileFinder:
        if folder != _HERE and not folder.startswith(_HERE + "/"):
            raise ImportError
        return FileFinder(folder, (_Loader, [".py"]))

    _writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path_hooks.insert(0, _find_ours)
    _spec = importlib.util.spec_from_file_location(_PACKAGE, _HERE + "/__init__.py", submodule_search_locations=[_HERE])
    assert _spec is not None
    sys.modules[_PACKAGE] = importlib.util.module_from_spec(_spec)
    _loop = importlib.import_module(_PACKAGE + ".loop")
    _loader = importlib.import_module(_PACKAGE + ".script.loader")
    sys.path_hooks.remove(_find_ours)
    sys.dont_write_bytecode = _writes_bytecode

    _arguments, sys.argv[1:] = sys.argv[1:], []
    raise SystemExit(_loop.main(_loader.load, _arguments))
