"""The layout is the architecture: imports point down only, every file says what it is for, and none is a heap."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import xai_fast

ROOT = Path(xai_fast.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# Each may import those before it; those of one set may not import each other.
ORDER = [
    {"ops"},
    {"report"},
    {"graph"},
    {"core"},
    {"images"},
    {"results"},
    {"engine"},
    {"methods"},
    {"models"},
    {"metrics", "compat", "audit", "video"},
    {"explain"},  # beside the command line, which is one of its callers
    {"cli"},
]
LEVEL = {layer: level for level, layers in enumerate(ORDER) for layer in layers}
# Layers that the drawing keeps even further apart than their order says.
FORBIDDEN = {("report", "ops"): "report knows records and arrays, never tensors' kernels"}
# What stands outside the layers: the table of contents, and helpers without imports of ours.
FREE = {"__init__", "_callable", "_locking", "_printing", "_version", "__main__", "accelerate"}
LONGEST = 300
# A file above the limit, and its argument.
LONG_FILES: dict[str, str] = {"methods/registry.py": "a table: a dozen lines of static data per method"}


def name_of(path):
    return str(path.relative_to(ROOT))


def layer_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path, tree):
    """Every module of ours that a file imports, in full, wherever in the file: (line, dotted name)."""
    package = ["xai_fast", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "xai_fast")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "xai_fast":
                yield from ((node.lineno, f"xai_fast.{alias.name}") for alias in node.names)
            elif module.startswith("xai_fast."):
                yield node.lineno, module


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def names_in(tree):
    """Every identifier, attribute and string that is not documentation."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and is_text(node.body[0])
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def wrong_imports(path, tree):
    layer = layer_of(path)
    for line, module in imports_of(path, tree):
        other = (module + ".the package itself").split(".")[1]
        if layer in ("cli", "explain") and other == "the package itself":
            continue
        if layer in FREE or other == layer or other in FREE:
            continue
        if LEVEL.get(other, len(ORDER)) >= LEVEL[layer] or (layer, other) in FORBIDDEN:
            yield f"{name_of(path)}:{line} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    assert layer_of(path) in LEVEL.keys() | FREE, "a file or folder that the drawing does not have"
    assert list(wrong_imports(path, tree_of(path))) == []


def test_imports_that_point_up_are_seen():
    """The test above can fail: at module level, inside functions, relative, and through the package."""
    for text in (
        "from xai_fast.engine import Engine",
        "import xai_fast.engine.run",
        "def f():\n    from ..engine.run import run",
        "from xai_fast import methods",
        "from .. import methods",
        "import xai_fast",
        "if TYPE_CHECKING:\n    from xai_fast.models.load import load",
    ):
        assert list(wrong_imports(ROOT / "core" / "guard.py", ast.parse(text))), text
    for text in ("from xai_fast.ops import hide_windows", "from .targets import Target", "from ..report import Scale"):
        assert not list(wrong_imports(ROOT / "core" / "guard.py", ast.parse(text))), text


@cache
def mentions(path, text):
    """What the text of one of our files imports: (the module's name, the same with what is taken from it)."""
    package = ["xai_fast", *path.relative_to(ROOT).parent.parts]
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(module, f"{module}.{alias.name}") for alias in node.names]
    return found


def uses(files):
    """Which of our modules each of our modules imports, type-checking and function-level imports included.

    Args:
        files: from path to text.
    """
    names = {path: dotted(path) for path in files}
    modules = set(names.values())
    graph = {}
    for path, text in files.items():
        # What is imported from a package is its submodule, where it has one of that name.
        found = {part if part in modules else module for module, part in mentions(path, text)}
        graph[names[path]] = {module for module in found if module in modules and module != names[path]}
    return graph


def dotted(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle(graph):
    """The modules that import each other: those left when all that import none of the rest are gone."""
    left = dict(graph)
    while free := [module for module, used in left.items() if not used & left.keys()]:
        for module in free:
            del left[module]
    # What only leads to a circle is no part of it.
    while unused := [module for module in left if not any(module in used for used in left.values())]:
        for module in unused:
            del left[module]
    return sorted(left)


def test_no_imports_in_a_circle():
    assert circle(uses({path: path.read_text(encoding="utf-8") for path in FILES})) == []


@pytest.mark.parametrize(
    "text",
    [
        "from .engine import Engine",
        "def late():\n    from xai_fast.engine.engine import Engine",
        "if TYPE_CHECKING:\n    from .engine import Engine",
        "import xai_fast.engine.engine",
    ],
)
def test_a_circle_is_seen(text):
    """The test above can fail: the store is what the engine imports."""
    files = {path: path.read_text(encoding="utf-8") for path in FILES}
    files[ROOT / "engine" / "store.py"] += f"\n{text}\n"
    found = circle(uses(files))
    assert {"xai_fast.engine.store", "xai_fast.engine.engine"} <= set(found)
    assert "xai_fast.engine.settings" not in found


def test_ops_never_see_a_module():
    for path in FILES:
        if layer_of(path) != "ops":
            continue
        for node in ast.walk(tree_of(path)):
            imported = []
            if isinstance(node, ast.ImportFrom) and node.module in ("torch", "torch.nn"):
                imported = [alias.name for alias in node.names]
            assert not {"nn", "Module"} & set(imported), f"{name_of(path)}:{node.lineno}"
            assert not (isinstance(node, ast.Attribute) and node.attr == "Module"), f"{name_of(path)}:{node.lineno}"


def test_the_engine_names_no_method():
    methods = set(xai_fast.methods())
    for path in FILES:
        if layer_of(path) in ("ops", "graph", "core", "images", "results", "engine"):
            assert not methods & set(names_in(tree_of(path))), name_of(path)


def test_methods_have_no_loop_over_chunks():
    """The loop is the engine's: no method calls another's `attribute`, and none asks how many rows fit."""
    for path in FILES:
        if layer_of(path) != "methods":
            continue
        calls = {
            node.func.attr
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        assert not calls & {"attribute", "rows", "sweep", "split", "chunk"}, name_of(path)


def test_the_report_knows_neither_torch_nor_the_engine():
    for path in FILES:
        if layer_of(path) == "report":
            modules = {
                alias.name.split(".")[0]
                for node in ast.walk(tree_of(path))
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            assert "torch" not in modules, name_of(path)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_says_what_it_is_for(path):
    text = path.read_text(encoding="utf-8")
    first = ast.get_docstring(ast.parse(text))
    assert first, "a file starts with a docstring"
    assert text.startswith('"""'), "on its first line"
    assert first.splitlines()[0].endswith((".", "?")), "a sentence"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_stay_short_and_are_named_for_what_they_hold(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST or name_of(path) in LONG_FILES, f"{lines} lines; split it, or argue in LONG_FILES"
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "stuff", "tools"}
    assert not vague & {part.removesuffix(".py").strip("_") for part in path.relative_to(ROOT).parts}


def test_exceptions_are_still_needed():
    for name in LONG_FILES:
        assert len((ROOT / name).read_text().splitlines()) > LONGEST, f"{name} is short now: strike it off LONG_FILES"


def test_methods_are_final_and_abstract_ones_say_so():
    """A class is abstract or final, never in between."""
    for info in xai_fast.methods().values():
        cls = info.cls
        assert getattr(cls, "__final__", False), f"{info.name} is not @final"
        for parent in cls.__mro__[1:]:
            if parent.__module__.startswith("xai_fast"):
                assert parent.__name__.startswith("Abstract")
                assert not getattr(parent, "__final__", False)
