"""Modules that are also functions: `xf.explain(...)` beside `xai_fast/explain.py`, `xf.methods()` beside the folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(module_name: str, function: Callable[..., Any]) -> None:
    """Lets the named module be called as `function`.

    Importing a submodule binds it as an attribute of its package, over a function of the same name. Where the
    public contract wants both names, the module itself answers the call.
    """

    class CallableModule(ModuleType):
        __doc__ = function.__doc__
        __wrapped__ = staticmethod(function)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    sys.modules[module_name].__class__ = CallableModule
