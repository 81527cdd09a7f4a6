"""How methods are put into a library and taken out again, tested on a library that is made up here."""

from __future__ import annotations

import importlib
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xai_fast.compat import patches
from xai_fast.compat.calls import Accelerated, Uncovered
from xai_fast.compat.patches import Library, switch_off, switch_on
from xai_fast.compat.tally import TALLY

SOURCE = """
    import random
    import functools

    class Base:
        pass

    class Double(Base):
        def attribute(self, inputs, target=None, **kwargs):
            'Twice the inputs.'
            if inputs is None:
                raise AssertionError("inputs must be given")
            return ("library", 2 * inputs, target, kwargs)

        def several(self, *parts, times=1):
            return ("library", *(times * part for part in parts))

    class Other(Double):
        pass
"""


def served(call):
    """Takes positive numbers, quickly."""
    if call["inputs"] is None:
        raise RuntimeError("ours fell over")
    if call["inputs"] < 0:
        np.random.rand(), torch.rand(1)
        raise Uncovered("negative inputs")
    return ("ours", 2 * call["inputs"], call["target"], {})


def served_several(call):
    """Asks the library for one part more."""
    return ("ours", call.plain(times=call["times"] + 1), call.positional)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library `pretend`, importable and not imported; and how it is accelerated."""
    package = tmp_path / "pretend"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "attr.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(str(tmp_path))
    accelerated = Accelerated("Double", "pretend.attr", f"{__name__}:served", draws=True)
    missing = Accelerated("Gone", "pretend.attr", f"{__name__}:served")
    several = Accelerated("Double", "pretend.attr", f"{__name__}:served_several", "several")
    library = Library("pretend", "pretend.attr", (accelerated, missing, several))
    TALLY.reset()
    yield library
    switch_off([library], for_all=True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pretend"]:
        del sys.modules[name]
    TALLY.reset()


def imported():
    return importlib.import_module("pretend.attr")


def test_after_the_import(library):
    pretend = imported()
    explainer, original = pretend.Double(), pretend.Double.attribute
    switch_on([library])
    assert explainer.attribute(3) == ("ours", 6, None, {})
    assert pretend.Double.attribute.__wrapped__ is original
    assert pretend.Double.attribute.__doc__ == "Twice the inputs."
    assert isinstance(explainer, pretend.Base)
    assert pretend.Other().attribute(1, target=4) == ("ours", 2, 4, {})
    switch_off([library])
    assert pretend.Double.attribute is original
    assert explainer.attribute(3)[0] == "library"


def test_before_the_import(library):
    switch_on([library])
    assert "pretend" not in sys.modules, "nothing is imported that was not"
    from pretend.attr import Double  # type: ignore[import-not-found]

    assert Double().attribute(3)[0] == "ours"
    assert importlib.util.find_spec("pretend.attr").origin.endswith("attr.py")
    assert "exec_module" not in vars(sys.modules["pretend.attr"].__loader__)
    switch_off([library])
    assert Double().attribute(3)[0] == "library"
    assert patches._FINDER not in sys.meta_path


@pytest.mark.parametrize("first", ["attr", "more"])
def test_modules_that_are_imported_apart(library, first):
    importlib.import_module("pretend")
    (Path(sys.modules["pretend"].__file__).parent / "more.py").write_text(textwrap.dedent(SOURCE))
    apart = Accelerated("Double", "pretend.more", f"{__name__}:served")
    library = replace(library, methods=(*library.methods, apart), apart=("pretend.more",))
    switch_on([library])
    try:
        for name in sorted(("attr", "more"), key=lambda name: name != first):
            double = importlib.import_module(f"pretend.{name}").Double
            assert double().attribute(3)[0] == "ours"
            assert not hasattr(double.attribute.__wrapped__, "__xai_fast__"), "put in once"
    finally:
        switch_off([library])
    assert sys.modules["pretend.more"].Double().attribute(3)[0] == "library"
    assert imported().Double().attribute(3)[0] == "library"
    assert patches._FINDER not in sys.meta_path


def test_switched_off_before_it_was_imported(library):
    switch_on([library])
    switch_off([library])
    assert imported().Double().attribute(3)[0] == "library"


def test_what_is_held_of_it_is_switched_off_too(library):
    pretend = imported()
    switch_on([library])
    held = pretend.Double().attribute
    switch_off([library])
    assert held(3)[0] == "library"


def test_the_last_user_switches_it_off(library):
    pretend = imported()
    switch_on([library])
    switch_on([library])
    switch_off([library])
    assert pretend.Double().attribute(3)[0] == "ours"
    switch_off([library])
    assert pretend.Double().attribute(3)[0] == "library"


def test_somebody_elses_replacement_stays(library):
    pretend = imported()
    switch_on([library])
    pretend.Double.attribute = lambda self, inputs: "somebody"
    switch_off([library])
    assert pretend.Double().attribute(3) == "somebody"


def test_what_is_not_covered_is_passed_on_and_counted(library):
    pretend = imported()
    switch_on([library])
    explainer = pretend.Double()
    explainer.attribute(1)
    explainer.attribute(2, extra=5)
    torch.manual_seed(0)
    np.random.seed(0)
    assert explainer.attribute(-2, 7, extra=5) == ("library", -4, 7, {"extra": 5})
    drawn = torch.rand(1).item(), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    assert drawn == (torch.rand(1).item(), np.random.rand()), "what ours drew before it gave up is taken back"
    report = TALLY.report()
    assert (report.accelerated, report.passed_on) == (2, 1)
    text = str(report)
    assert "2 calls accelerated, 1 passed on" in text
    assert "passed on: negative inputs" in text
    assert all(row.seconds >= 0 for row in report.rows)


def test_exceptions_stay_the_librarys(library):
    pretend = imported()
    switch_on([library])
    with pytest.raises(AssertionError, match="inputs must be given") as raised:
        pretend.Double().attribute(None)
    assert raised.value.__context__ is None
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        pretend.Double().attribute()
    assert TALLY.report().rows[0].reason == "RuntimeError: ours fell over"


def test_what_came_by_position_goes_on_by_position(library):
    pretend = imported()
    switch_on([library])
    assert pretend.Double().several(1, 2, times=3) == ("ours", ("library", 4, 8), (1, 2))
    assert pretend.Double().several() == ("ours", ("library",), ())


def test_threads_are_counted(library):
    pretend = imported()
    switch_on([library])
    threads = [
        threading.Thread(target=lambda: [pretend.Double().attribute(number) for number in range(-50, 50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = TALLY.report()
    assert (report.accelerated, report.passed_on) == (200, 200)
