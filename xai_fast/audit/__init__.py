"""A data set, not an image: attributions of every photograph, killed at any moment, nothing lost. `xf.audit(...)`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_fast._callable import make_callable

if TYPE_CHECKING:
    from .auditing import audit as audit
    from .checks.storing import Findings
    from .reading import AuditRun


def read(directory: Any) -> AuditRun:
    """The run in a folder: `.table()`, `.frame()`, `.maps(method)`, `.counts`; see `AuditRun`.

    Raises:
        ValueError: there is none.
    """
    _needs_arrow()
    from .reading import read

    return read(directory)


def check(run: Any, **settings: Any) -> Findings:
    """What is wrong with a model or its data, by the records of a run; see `xai_fast.audit.checks.checking.check`.

    Raises:
        ValueError: no run, or wrong settings.
    """
    _needs_arrow()
    from .checks.checking import check

    return check(run, **settings)


def report(run: Any, **settings: Any) -> Path:
    """Writes a page about a run that was checked; see `xai_fast.audit.site.writing.report`.

    Raises:
        ValueError: the run was not checked.
    """
    _needs_arrow()
    from .site.writing import report

    return report(run, **settings)


def _audit(*args: Any, **kwargs: Any) -> AuditRun:
    _needs_arrow()
    from .auditing import audit

    return audit(*args, **kwargs)


def _needs_arrow() -> None:
    try:
        import pyarrow  # noqa: F401 - only whether it is there
    except ImportError:
        raise ImportError("audits keep their records as Parquet; `pip install 'xai_fast[audit]'`") from None


make_callable(__name__, _audit)
