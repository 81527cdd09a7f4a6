"""Do maps become others under noise that hardly shows, while the model's answer stays?

What is compared is a map and that of a copy of the image with a little normal noise (`audit.noise`): the length of the
change over the map's, which is the sensitivity of Yeh et al. (2019, "On the (In)fidelity and Sensitivity of
Explanations", arXiv:1901.09392) for one draw in place of the worst of many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .finding import Finding
from .records import Records
from .statistics import holm, more_often, more_than
from .thresholds import Thresholds

NAME = "unstable"
QUESTION = "Do maps become others under a little noise, all of them or those of one class, while the answer stays?"


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    if records.noise is None:
        return "the run explained no noisy copies; run it with `noisy` (--noisy 0.1) for this check"
    return "" if np.isfinite(records.noise["change"]).any() else "no noisy copy has a map"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding for all maps, and one per class whose maps become others more often than the rest's."""
    if lacking(records):
        return []
    noise = records.noise
    assert noise is not None
    kept = ~np.isfinite(noise["prediction"]) | (noise["prediction"] == records.prediction)
    seen = np.isfinite(noise["change"])
    asked, changed = seen & kept, seen & kept & (noise["change"] >= limits.changed)
    tests = [(None, asked, more_than(int(changed.sum()), int(asked.sum()), limits.unstable))]
    for index in np.unique(records.target[asked & (records.target >= 0)]).tolist():
        own, rest = asked & (records.target == index), asked & (records.target != index)
        if min(own.sum(), rest.sum()) >= limits.least_images:
            counts = (int((changed & own).sum()), int(own.sum()), int((changed & rest).sum()), int(rest.sum()))
            tests.append((index, own, more_often(*counts)))
    found = []
    for (index, own, _), p in zip(tests, holm([test[-1] for test in tests]), strict=True):
        share, others = _share(changed, own), _share(changed, asked & ~own)
        more = index is None or share - others >= limits.error_gain
        if p < limits.alpha and more and own.sum() >= limits.least_images:
            found.append(_finding(records, index, own, changed, seen, float(p), len(tests)))
    return found


def _finding(
    records: Records,
    index: int | None,
    own: NDArray[np.bool_],
    changed: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    p: float,
    tests: int,
) -> Finding:
    noise = records.noise
    assert noise is not None
    chosen = np.flatnonzero(own & changed)
    chosen = chosen[np.argsort(-noise["change"][chosen], kind="stable")]
    share = _share(changed, own)
    group = seen if index is None else seen & (records.target == index)
    flipped = group & np.isfinite(noise["prediction"]) & (noise["prediction"] != records.prediction)
    evidence = {
        "noisy copies": int(group.sum()),
        "maps that become others": share,
        **({} if index is None else {"elsewhere": _share(changed, seen & ~group & ~flipped)}),
        "median change": float(np.median(noise["change"][own])),
        "median rank correlation": float(np.nanmedian(noise["rank"][own])) if _any(noise["rank"], own) else "none",
        "answers that change": float(flipped.sum() / group.sum()),
        "p (Holm)": p,
        "tests": tests,
    }
    name = "all classes" if index is None else records.name(index)
    return Finding(
        NAME,
        f"{name}: a little noise makes {share:.0%} of the maps others, though the answer stays",
        "medium" if index is None and share >= 0.5 else "low",
        share,
        evidence,
        tuple(records.position[chosen].tolist()),
        tuple(float(value) for value in noise["change"][chosen]),
        index,
    )


def _share(changed: NDArray[np.bool_], group: NDArray[np.bool_]) -> float:
    return float(changed[group].mean()) if group.any() else 0.0


def _any(values: NDArray[np.floating], group: NDArray[np.bool_]) -> bool:
    return bool(np.isfinite(values[group]).any())
