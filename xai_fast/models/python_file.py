"""Models from a Python file: run it, call the function that was named, check what it returns."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from xai_fast._printing import text_of
from xai_fast.images.preprocess import Preprocess
from xai_fast.models.weights import load_weights, read_state_dict

KEYS = ("model", "preprocess", "classes")
FITS = (
    "a torch.nn.Module or another callable, a tuple (model, preprocess) or (model, preprocess, classes), "
    "or a dict with the keys " + ", ".join(map(repr, KEYS))
)


def load_python_file(
    file: str, function: str, weights: str | Path | None, allow_pickle: bool
) -> tuple[Any, Preprocess | None, tuple[str, ...] | None]:
    """Execute a file and call one of its functions without arguments; see `xai_fast.models.load`.

    The file's folder can be imported from while the file and the function run, and not afterwards. What they import
    stays imported, as ever.

    Returns:
        (model, preprocess, classes); a `torch.nn.Module` in eval mode.

    Raises:
        ValueError: the file or the function does not exist, or it ends the program. Whatever else it raises is passed.
        TypeError: the function needs arguments, or returns something else than a model.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise ValueError(f"`model`: there is no file {path}; give FILE.py:FUNCTION with the path of an existing file")
    try:
        with _importable(path.parent):
            returned = _function(_execute(path), function, path)()
    except SystemExit as error:  # a script's way to end, which must not end its caller
        said = text_of(error)
        raise ValueError(f"`model`: {path.name} ended the program (SystemExit: {said}); guard what it runs") from error
    model, preprocess, classes = _parts(returned, f"`model`: {function}() of {path.name}")
    if isinstance(model, nn.Module):
        model = model.eval()
    if weights not in (None, "none"):
        if not isinstance(model, nn.Module):
            raise TypeError(f"`weights` can be loaded into a torch.nn.Module; {function}() made a {_kind(model)}")
        load_weights(model, read_state_dict(weights, allow_pickle), weights)
    return model, preprocess, classes


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:  # the file may have taken it out itself
            sys.path.remove(entry)


def _execute(path: Path) -> ModuleType:
    # A name of its own: a user's `resnet.py` or `utils.py` must shadow nobody's. It stays in sys.modules because
    # dataclasses, pickling and torch.compile look modules up there.
    name = f"_xai_fast_file_{path.stem}_{sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _function(module: ModuleType, name: str, path: Path) -> Any:
    function = getattr(module, name, None)
    if not callable(function):
        own = [
            key
            for key, value in vars(module).items()
            if callable(value) and not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
        there = f"it defines {', '.join(own)}" if own else "it defines none"
        raise ValueError(f"`model`: {path} has no function {name!r}; {there}. Write FILE.py:FUNCTION")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise TypeError(
            f"`model`: {name} of {path.name} is called without arguments ({error}); give its parameters defaults, "
            "or write a function without any that calls it"
        ) from None
    except ValueError:
        pass  # some built-in callables have no signature to look at
    return function


def _parts(returned: Any, who: str) -> tuple[Any, Preprocess | None, tuple[str, ...] | None]:
    if isinstance(returned, dict):
        if "model" not in returned or not set(returned) <= set(KEYS):
            raise TypeError(f"{who} returned a dict with the keys {sorted(map(str, returned))}; return {FITS}")
        parts = [returned.get(key) for key in KEYS]
    elif isinstance(returned, tuple):
        if not 1 <= len(returned) <= len(KEYS):
            raise TypeError(f"{who} returned a tuple of {len(returned)}; return {FITS}")
        parts = [*returned, None, None][: len(KEYS)]
    else:
        parts = [returned, None, None]
    model, preprocess, classes = parts
    if not callable(model) or isinstance(model, type):
        raise TypeError(f"{who} returned {_kind(model)} where the model belongs; return {FITS}")
    return model, _preprocess(preprocess, who), _classes(classes, who)


def _preprocess(value: Any, who: str) -> Preprocess | None:
    if value is None or isinstance(value, Preprocess):
        return value
    if type(value).__module__.startswith("torchvision."):
        from xai_fast.models.torchvision_zoo import preprocess_of

        if translated := preprocess_of(value):
            return translated
    raise TypeError(
        f"{who} returned {_kind(value)} where the preprocessing belongs; return an "
        "xai_fast.images.preprocess.Preprocess, the transforms() of torchvision weights, or None"
    )


def _classes(value: Any, who: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise TypeError(f"{who} returned {_kind(value)} where the classes belong; return a tuple of str, or None")


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
