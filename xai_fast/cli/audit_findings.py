"""`xai-fast audit check | report`: what is wrong, in lines and as a site."""

from __future__ import annotations

from pathlib import Path

from xai_fast._printing import printable
from xai_fast.audit.checks.checking import check as checked
from xai_fast.audit.checks.storing import FINDINGS, Findings
from xai_fast.audit.site.writing import report as written

from .console import line


def check(out: Path, method: str | None, confirm: bool) -> None:
    """Checks a run and says what was found."""
    _say(checked(out, method=method, confirm=confirm), out)


def report(out: Path, to: Path | None, again: bool) -> None:
    """Writes the site of a run, which is checked before if it was not."""
    if again or not (out / FINDINGS).exists():
        _say(checked(out), out)
    line("open ", (printable(str(written(out, out=to))), "bold"))


def _say(findings: Findings, out: Path) -> None:
    for finding in findings:
        line((finding.severity, "bold"), f": {printable(finding.title)} ({finding.confirmation.state})")
    for name, why in findings.skipped.items():
        line((name, "bold"), f" was not checked: {printable(why)}")
    line(f"{len(findings)} findings in {findings.images:,} images; kept in ", (printable(str(out / FINDINGS)), "bold"))
