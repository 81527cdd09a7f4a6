"""Python values that cannot change: which they are, whether two are the same, and who wrote a class or function.

Nothing of the user's runs: no properties, no comparisons of objects.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import re
import sys
import types
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch

_NUMBERS = (float, complex)  # which compare equal without being the same
_BY_VALUE = (
    *(int, bool, str, bytes, range, torch.dtype, torch.device, decimal.Decimal, fractions.Fraction, uuid.UUID),
    *(datetime.date, datetime.time, datetime.datetime, datetime.timedelta, pathlib.PosixPath, pathlib.WindowsPath),
)
_BY_IDENTITY = (
    *(type(None), type(...), type(NotImplemented), types.ModuleType, types.CodeType, re.Pattern),
    *(types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType),
    *(types.MethodDescriptorType, torch.layout, torch.memory_format),
)
VALUES = frozenset((*_BY_VALUE, *_NUMBERS))
ATOMS = frozenset((*_BY_VALUE, *_NUMBERS, *_BY_IDENTITY))
ROOTS = frozenset(("torch", "xai_fast", "builtins", "numpy", *sys.stdlib_module_names))
_FROZEN = (int, float, complex, str, bytes, np.generic)  # of which a subclass cannot change its value either


def is_atom(value: Any) -> bool:
    """Whether a value cannot change."""
    kind = type(value)
    if kind in ATOMS:
        return True
    if kind is tuple or kind is torch.Size:
        return all(map(is_atom, value))
    if kind is types.BuiltinFunctionType:
        return value.__self__ is None or type(value.__self__) is types.ModuleType
    if kind is types.FunctionType:
        return not is_users(value) and (value.__closure__ is None or root_of(value.__module__) == "torch")
    if issubclass(kind, type):
        return root_of(module_of(value)) in ROOTS
    return issubclass(kind, (enum.Enum, np.dtype, np.ufunc, *_FROZEN))


def same_atoms(left: Any, right: Any) -> bool:
    """Whether two atoms are the same value: NaN is itself, and 0 is neither -0.0 nor False."""
    if left is right:
        return True
    kind = type(left)
    if kind is not type(right):
        return False
    if kind is tuple or kind is torch.Size:
        return len(left) == len(right) and all(map(same_atoms, left, right))
    if kind in _NUMBERS:
        return repr(left) == repr(right)
    if kind in VALUES:
        return left == right
    base = next((base for base in _FROZEN if issubclass(kind, base)), None)
    if base is np.generic:
        return left.dtype == right.dtype and left.tobytes() == right.tobytes()
    return base is not None and not issubclass(kind, enum.Enum) and base.__repr__(left) == base.__repr__(right)


def root_of(module: Any) -> str:
    """The package of a module's name; "" where that is no name."""
    return module.partition(".")[0] if isinstance(module, str) else ""


def module_of(cls: type) -> Any:
    """The name of the module that a class says it is from, whatever its metaclass makes of that."""
    return type.__getattribute__(cls, "__module__")


@functools.lru_cache(maxsize=4096)
def _is_users(module: str) -> bool:
    if root_of(module) in ROOTS:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not {"site-packages", "dist-packages"} & set(Path(file).parts)


def is_users(value: Any) -> bool:
    """Whether a class or function is the user's own, not of an installed library."""
    module = module_of(value) if issubclass(type(value), type) else value.__module__
    return _is_users(module) if isinstance(module, str) else True
