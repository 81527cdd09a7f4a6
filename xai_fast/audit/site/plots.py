"""Plots of a model's performance: what it takes for what, and whether it is right as often as it says.

The figures are matplotlib's, each once for light and once for dark screens. Letters are drawn as outlines, so that no
name can be anything but a picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_fast._printing import printable
from xai_fast.audit.checks.records import Records
from xai_fast.report import write_atomically

from .performance import interval

NAMES = ("confusion", "reliability")
INKS = {"light": ("#1b1b1f", "#71717a", "#b4371f", "#ffffff"), "dark": ("#ececef", "#a0a0aa", "#ff9a73", "#1d1d21")}
"""Of letters, of what is less important, of marks, and of letters on marks."""
_CLASSES, _LETTERS, _BINS = 16, 18, 10
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "xai_fast",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
}


def write_plots(records: Records, folder: Path) -> str:
    """Writes `NAME-light.svg` and `NAME-dark.svg` of both; "", or why there are none.

    Args:
        records: of the run.
        folder: for them.
    """
    if not records.judged.any():
        return "no image has both a label and a prediction"
    try:
        import matplotlib as mpl
    except ImportError:
        return "matplotlib is missing; pip install 'xai_fast[audit]'"
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a script that the font does not know: boxes are all it has
        for theme, inks in INKS.items():
            for name, draw in zip(NAMES, (_confusion, _reliability), strict=True):
                figure = _figure(inks[0])
                draw(figure.axes[0], records, inks)
                _save(figure, folder / f"{name}-{theme}.svg")
    return ""


def _figure(ink: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=ink, length=2)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def _save(figure: Any, path: Path) -> None:
    keeps = {"format": "svg", "transparent": True, "metadata": {"Date": None, "Creator": None}}
    write_atomically(path, lambda file: figure.savefig(file, **keeps))


def _confusion(axes: Any, records: Records, inks: Sequence[str]) -> None:
    """Of each label the share of every answer; of many classes those of which most answers are wrong."""
    from matplotlib.colors import LinearSegmentedColormap

    ink, _, accent, paper = inks
    shown, shares = confused(records)
    ramp = LinearSegmentedColormap.from_list("", [accent + "00", accent + "ff"])
    places = np.arange(len(shown) + 1) - 0.5
    axes.pcolormesh(places, places, shares, cmap=ramp, vmin=0, vmax=1)
    axes.invert_yaxis()
    names = [_short(records.name(index)) for index in shown]
    axes.set_xticks(range(len(shown)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), names)
    for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
        share, told = shares[row, column], {"ha": "center", "va": "center", "fontsize": 7}
        axes.text(column, row, f"{100 * share:.0f}", color=paper if share > 0.5 else ink, **told)
    axes.set_xlabel("taken for", color=ink)
    axes.set_ylabel("labelled", color=ink)


def confused(records: Records) -> tuple[list[int], NDArray[np.float64]]:
    """Classes, and of the images (rows) of each label the share that is taken for each (columns), in [0, 1].

    Of more than fit, those of which most are wrong; what goes to others is then in no column.
    """
    judged = records.judged
    label, prediction = records.label[judged], records.prediction[judged]
    classes = np.unique(np.concatenate([label, prediction]))
    if len(classes) > _CLASSES:
        wrong = label != prediction
        involved = [int((wrong & ((label == one) | (prediction == one))).sum()) for one in classes]
        classes = np.sort(classes[np.argsort(-np.array(involved), kind="stable")[:_CLASSES]])
    shares = np.zeros((len(classes), len(classes)))
    for row, one in enumerate(classes):
        own = prediction[label == one]
        shares[row] = [(own == other).mean() if len(own) else 0 for other in classes]
    return classes.tolist(), shares


def _reliability(axes: Any, records: Records, inks: Sequence[str]) -> None:
    """How often an answer is the label, by how sure the model was (Guo et al. 2017, "On Calibration")."""
    ink, soft, accent, _ = inks
    told = reliable(records)
    axes.plot([0, 1], [0, 1], color=soft, linewidth=1, linestyle=":")
    for sure, share, low, high, count in told:
        axes.plot([sure, sure], [low, high], color=ink, linewidth=1.5)
        axes.plot(sure, share, "o", color=accent, markersize=5)
        axes.annotate(f"{count:,}", (sure, low), (0, -3), textcoords="offset points", ha="center", va="top", color=soft)
    axes.set(xlim=(0, 1.04), ylim=(-0.09, 1.04), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set_xlabel("the model's probability of its answer", color=ink)
    axes.set_ylabel("share that is right, with 95 % interval", color=ink)


def reliable(records: Records) -> list[tuple[float, float, float, float, int]]:
    """Per tenth of probability: its mean, the share of right answers with its 95 % interval, and how many images."""
    judged = records.judged & np.isfinite(records.numbers["probability"])
    sure, right = records.numbers["probability"][judged], ~records.wrong[judged]
    place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    found = []
    for number in np.unique(place).tolist():
        own = place == number
        hits, count = int(right[own].sum()), int(own.sum())
        found.append((float(sure[own].mean()), hits / count, *interval(hits, count), count))
    return found


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"
