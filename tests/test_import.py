"""What an import costs and brings along, measured in fresh processes; and that names stay what they are."""

from __future__ import annotations

import ast
import importlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xai_fast as xf

HEAVY = ("torch", "torchvision", "matplotlib", "numpy", "PIL", "skimage", "safetensors", "jinja2", "rich", "typer")


def fresh(code, **environment):
    """The last line that `code` prints in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1] if result.stdout.strip() else ""


def test_import_brings_nothing_heavy():
    code = f"""
import sys, xai_fast
loaded = [name for name in {HEAVY} if name in sys.modules]
loaded += [name for name in sys.modules if name.startswith("xai_fast._C") or name.startswith("xai_fast.ops")]
print(loaded)
"""
    assert fresh(code) == "[]"


def test_the_registry_needs_no_torch():
    """The command line lists methods without waiting for torch; here torch cannot even be imported."""
    code = f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None
import xai_fast as xf
infos = xf.methods()
assert "Occlusion" in infos and infos["GradCAM"].paper and infos["Saliency"].kind == "pixels"
print(len(infos))
"""
    assert int(fresh(code)) == len(xf.methods())


def test_methods_load_no_picture_library():
    code = """
import sys, xai_fast as xf
xf.Engine, xf.Occlusion, xf.GradCAM, xf.Saliency, xf.InputXGradient, xf.targets
print([name for name in ("torchvision", "matplotlib", "skimage", "jinja2", "rich", "typer") if name in sys.modules])
"""
    assert fresh(code) == "[]"


def test_an_engine_loads_only_our_own_modules_beside_torch():
    """Nor those of torch that take long, such as its tracer and compiler; what an import takes is no test's affair."""
    code = """
import sys, torch, numpy
before = set(sys.modules)
import xai_fast as xf
xf.Engine
loaded = set(sys.modules) - before
foreign = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"xai_fast", "torch", "numpy"}
print(sorted(foreign) + [name for name in loaded if name.startswith(("torch.fx", "torch._dynamo", "torch.export"))])
"""
    assert fresh(code) == "[]"


def test_public_names_resolve():
    for name in xf.__all__:
        assert getattr(xf, name) is not None
        assert name in dir(xf)
    assert sorted(xf.__all__) == list(xf.__all__)
    assert len(set(xf.__all__)) == len(xf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Oclusion'"):
        _ = xf.Oclusion
    assert isinstance(xf.__version__, str)


def test_editors_see_the_names_that_there_are():
    """What type checkers read in `xai_fast/__init__.py` is what `__all__` makes of the registry when it runs."""
    tree = ast.parse(Path(xf.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.name == alias.asname  # `import X as X` is what type checkers take for public
    }
    missing = [f"from {home} import {name} as {name}" for name, home in xf._homes().items() if name not in seen]
    assert not missing, "add to `if TYPE_CHECKING` of xai_fast/__init__.py:\n" + "\n".join(missing)
    assert set(seen) == set(xf.__all__)
    for name, home in xf._homes().items():
        assert getattr(importlib.import_module(seen[name]), name) is getattr(importlib.import_module(home), name)


def test_every_method_is_public_and_is_what_the_registry_says():
    for name, info in xf.methods().items():
        assert name in xf.__all__
        assert getattr(xf, name) is info.cls
        assert info.cls.__name__ == info.name == name
        assert info.kind in ("pixels", "map", "text", "concepts", "filters")
        assert info.units in ("score", "score per input unit", "none")
        assert info.summary[0].islower() or "CAM" in info.summary.split()[0], "a clause, or the name of what it varies"
        assert info.paper


def test_star_import_and_names_in_any_order():
    code = """
from xai_fast import *
import xai_fast
assert all(name in globals() for name in xai_fast.__all__)
print("ok")
"""
    assert fresh(code) == "ok"


IMPORTS = (
    "import xai_fast.methods.occlusion",
    "import xai_fast.methods.registry",
    "import xai_fast.explain",
    "from xai_fast.methods.cam.gradcam import GradCAM",
    "from xai_fast import methods, explain",
)


def test_modules_that_are_functions_stay_callable():
    """`xf.methods()` and `xf.explain(...)` beside a folder and a file of these names, in every order of imports."""
    orders = [[], *itertools.permutations(IMPORTS, 2)]
    check = """
assert callable(xai_fast.methods) and callable(xai_fast.explain), "not callable"
assert "Occlusion" in xai_fast.methods()
assert xai_fast.methods.MethodInfo is xai_fast.MethodInfo
assert xai_fast.methods is sys.modules["xai_fast.methods"]
assert xai_fast.methods.Occlusion is xai_fast.Occlusion
try:
    xai_fast.explain()
except TypeError:
    pass
"""
    parts = []
    for order in orders:
        forget = 'for name in [n for n in sys.modules if n.split(".")[0] == "xai_fast"]: del sys.modules[name]'
        parts.append("\n".join(["import sys", forget, "import xai_fast", *order, check]))
    assert fresh("import torch\n" + "\n".join(parts) + "\nprint('ok')") == "ok"


def test_a_forced_backend_is_checked():
    code = """
import torch, xai_fast as xf
try:
    xf.Occlusion(lambda x: x.mean((2, 3)), window=1).attribute(torch.ones(1, 2, 3, 3), 0)
except ValueError as error:
    print(error)
"""
    assert "`XAI_FAST_BACKEND` is 'fastest'" in fresh(code, XAI_FAST_BACKEND="fastest")
