"""The page of results: every committed figure beside its error and its machine, in one HTML file.

    python benchmarks/plots.py --out benchmarks/results/0.1.0/index.html

It reads the JSON files beside it and measures nothing. The figures are matplotlib's (the extra `bench`).
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schema import check

HERE = Path(__file__).parent
INK, SOFT, OURS, SECOND = "#7a7a85", "#9a9aa5", "#d1512d", "#5b8db8"  # legible on white and on black
Record = dict[str, Any]


@dataclass
class Marks:
    """What a figure draws: per row a label, and per series how many times as fast we were.

    Attributes:
        series: from a name to its colour and marker.
        rows: a label and the ratios by series; absent ones are left out.
    """

    series: dict[str, tuple[str, str]]
    rows: list[tuple[str, dict[str, float]]] = field(default_factory=list)


@dataclass
class Section:
    """One kind of result on the page.

    Attributes:
        title: its heading.
        words: what is compared and what a ratio means.
        columns: names of the table's columns; those of numbers are set to the right.
        rows: cells as text, one row per record.
        marks: what its figure draws; without rows there is a table alone.
        picture: that figure as SVG, once it is drawn.
    """

    title: str
    words: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    marks: Marks = field(default_factory=lambda: Marks({}))
    picture: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "0.1.0", help="folder of JSON files")
    parser.add_argument("--out", type=Path, default=None, help="the page (default: index.html in that folder)")
    chosen = parser.parse_args()
    out = chosen.out or chosen.results / "index.html"
    out.write_text(page(chosen.results), encoding="utf-8")
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def page(folder: Path) -> str:
    """The page of all results in a folder.

    Raises:
        ValueError: a file lacks figures or their conditions; or there are none.
    """
    import jinja2

    records: list[tuple[Record, str]] = []
    for path in sorted(folder.glob("*.json")):
        results = json.loads(path.read_text())
        check(results)
        records += [(record, machine(results["conditions"])) for record in results["records"]]
    if not records:
        raise ValueError(f"no results in {folder}")
    sections = [made for make in SECTIONS if (made := make(records)).rows]
    for section in sections:
        if section.marks.rows:
            section.picture = drawn(section.marks)
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    machines = sorted({name for _, name in records})
    return environment.get_template("page.html").render(sections=sections, machines=machines, count=len(records))


def machine(conditions: Record) -> str:
    """Processor, threads and torch, as the page names them."""
    processor = re.sub(r"\((R|TM)\)|Processor|CPU", "", conditions["processor"])
    return f"{' '.join(processor.split())}, {conditions['threads']} threads, torch {conditions['versions']['torch']}"


def drawn(marks: Marks) -> str:
    """The figure as SVG: a row per case, how many times as fast on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    with plt.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "page"}):
        figure, axis = plt.subplots(figsize=(9, 0.27 * len(marks.rows) + 1.0), constrained_layout=True)
        for height, (_, ratios) in enumerate(marks.rows):
            ends = (min(1, *ratios.values(), 1), max(1, *ratios.values(), 1))
            axis.plot(ends, [height, height], color=SOFT, lw=0.8, alpha=0.5, zorder=1)
        for name, (colour, marker) in marks.series.items():
            points = [(ratios[name], at) for at, (_, ratios) in enumerate(marks.rows) if name in ratios]
            if points:
                axis.scatter(*zip(*points, strict=True), color=colour, marker=marker, s=34, label=name, zorder=2)
        axis.axvline(1, color=INK, lw=1)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_yticks(range(len(marks.rows)), [label for label, _ in marks.rows])
        axis.set_ylim(len(marks.rows) - 0.4, -0.6)
        axis.tick_params(which="both", colors=INK, length=0)
        axis.grid(axis="x", color=SOFT, alpha=0.25)
        for side in axis.spines.values():
            side.set_visible(False)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, labelcolor=INK, borderaxespad=0.2)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    whole = text.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", whole[whole.index("<svg") :], flags=re.S)


# The kinds of results


def methods(records: Iterable[tuple[Record, str]]) -> Section:
    """Ours against the reference libraries."""
    series = {"its best setting": (OURS, "o"), "its default": (SECOND, "o"), "first call": (SOFT, "D")}
    columns = ("case", "against", "ours", "its best", "its default", "ratio", "first call", "our error", "its error")
    section = Section(
        "Methods, against the reference libraries",
        "How many times as fast as the library we are, warm, at the library's best batch setting and at its default, "
        "and on the first call of a fresh process (ours prepares the model there). Errors are RMS, of float32 maps "
        "against the same formula in float64, as a share of the largest value.",
        (*columns, "machine"),
        marks=Marks(series),
    )
    found = [(record, where) for record, where in records if "library" in record]
    for record, where in sorted(found, key=lambda pair: -pair[0]["warm_ratio_best"]):
        seconds, errors = record["seconds"], record["error"]
        best, default, first = (
            record[f"{name}"] for name in ("warm_ratio_best", "warm_ratio_default", "first_ratio_best")
        )
        of_part = f" ({record['part']['units']} {record['part']['unit']})" if record.get("part") else ""
        section.rows.append(
            [
                *(record["case"] + of_part, record["library"]),
                *(span(seconds[side]["median"]) for side in ("ours", "best", "default")),
                *(times(best), times(first), error(errors["ours"]["rms"]), error(errors["peer"]["rms"]), where),
            ]
        )
        ratios = {"its best setting": best, "its default": default, "first call": first}
        section.marks.rows.append((f"{record['case']} · {record['library'].split()[0]}", ratios))
    return section


def first_calls(records: Iterable[tuple[Record, str]]) -> Section:
    """The first call of a process against the library's."""
    section = Section(
        "First calls",
        "One photograph in a fresh process, imports apart: our time over the library's (1.00x is as fast, more is "
        "slower), by the processor's time and by the clock, and how far the two maps are apart.",
        ("network", "method", "tier", "ours", "the library", "ours over theirs", "by the clock", "apart", "machine"),
    )
    for record, where in records:
        if "first_call" in record:
            seconds = (span(record["seconds"]["cpu"][side]["median"]) for side in ("ours", "peer"))
            ratios = (f"{record['ratios'][clock]:.2f}x" for clock in ("cpu", "wall"))
            cells = (*seconds, *ratios, error(record["difference"]), where)
            section.rows.append([record["network"], record["first_call"], record["tier"], *cells])
    return section


def forwards(records: Iterable[tuple[Record, str]]) -> Section:
    """The prepared forward against other forwards."""
    section = Section(
        "Forwards",
        "The prepared dense forward, 8 rows in float32, against other ways to run the same network; where it says "
        "bfloat16, that of the fast mode against an engine in bfloat16. Errors are the largest difference to the "
        "float64 output, as a share of its largest value.",
        ("network", "ours", "against", "seconds", "ratio", "our error", "its error", "machine"),
        marks=Marks(
            {
                **{"folded PyTorch": (OURS, "o"), "plain PyTorch": (SECOND, "o"), "compiled": (SOFT, "s")},
                **{"onnxruntime": (INK, "^"), "OpenVINO": (INK, "D")},
            }
        ),
    )
    names = {"folded": "folded PyTorch", "plain": "plain PyTorch", "compiled": "compiled"}
    names |= {"onnxruntime": "onnxruntime", "openvino": "OpenVINO", "openvino_bf16": "OpenVINO"}
    for record, where in records:
        if "bar_compiled" not in record:
            continue
        # What is compared with what: in bfloat16 the fast mode, where it ran in that.
        pairs = {side: "prepared" for side in names if side in record["seconds"] and side != "openvino_bf16"}
        if record.get("dtypes", {}).get("fast") == "bfloat16":
            pairs["openvino_bf16"] = "fast"
        marks: dict[str, dict[str, float]] = {}
        for side, own in pairs.items():
            label = record["network"] if own == "prepared" else f"{record['network']}, bfloat16"
            ours, theirs = (record["seconds"][of]["median"] for of in (own, side))
            marks.setdefault(label, {})[names[side]] = theirs / ours
            errors = (error(record["errors"][of]) for of in (own, side))
            section.rows.append([label, span(ours), names[side], span(theirs), times(theirs / ours), *errors, where])
        section.marks.rows += [(f"{label} ({where.split()[0]})", ratios) for label, ratios in marks.items()]
    return section


PEERS = {"best": "captum's best", "default": "captum's default", "dense": "our whole runs"}


def dropin(records: Iterable[tuple[Record, str]]) -> Section:
    """Other libraries' scripts, plain and accelerated."""
    section = Section(
        "Scripts on other libraries, accelerated in place",
        "Scripts that know nothing of us, run as they are and under xai_fast.accelerate, in turns. First: the first "
        "run in a process, preparing the model included. Of scripts that explain one photograph once, whole processes "
        "are compared, imports included. On our engine: how many of the calls were served, the others ran the "
        "library's own code. Errors are RMS shares of the largest value, to the library's own result in float64; apart "
        "is the largest difference between the two sides.",
        ("script", "plain", "accelerated", "ratio", "bar", "first", "on our engine", "apart", "errors", "machine"),
        marks=Marks({"warm": (OURS, "o"), "first run": (SOFT, "D"), "bar": (INK, "|")}),
    )
    for record, where in records:
        if "dropin" not in record:
            continue
        name, errors = record["dropin"].replace("_", " "), record["error"]
        first = record["ratio"] if record["once"] else record["ratio_first"]
        calls = record["accelerated"] + record["passed_on"]
        section.rows.append(
            [
                f"{name}, {record['network']}" + (", once" if record["once"] else ""),
                *(span(record["seconds"][side]["median"]) for side in ("plain", "accelerated")),
                *(times(record["ratio"]), times(record["bar"]), times(first)),
                *(f"{record['accelerated']} of {calls}", error(record["difference"])),
                " and ".join(error(errors[side]["rms"]) for side in ("ours", "peer")) if errors else "",
                where,
            ]
        )
        marks = {"bar": record["bar"], "first run": first} | ({} if record["once"] else {"warm": record["ratio"]})
        section.marks.rows.append((name, marks))
    return section


def overhead(records: Iterable[tuple[Record, str]]) -> Section:
    """What acceleration costs where it has nothing to save."""
    section = Section(
        "What accelerating costs",
        "Calls of the libraries on a network of three layers, plain and under xai_fast.accelerate in turns, and whole "
        "processes that import a library and end. Added: the difference of the medians.",
        ("call or process", "plain", "accelerated", "added", "allowed", "machine"),
    )
    for record, where in records:
        if "overhead" not in record:
            continue
        taken = (span(record["seconds"][side]["median"]) for side in ("plain", "accelerated"))
        section.rows.append([record["overhead"], *taken, span(record["added"]), span(record["bar"]), where])
    return section


def memory(records: Iterable[tuple[Record, str]]) -> Section:
    """What a process grows by for many layers and shapes."""
    section = Section(
        "What stays in memory",
        "What a process holds beyond the first call of its kind, the allocator's free memory included, and what is "
        "packed of weights. The model alone, forward and backward in plain torch, shows what libraries keep anyway.",
        ("calls", "network", "number", "growth", "allowed", "packed", "weights", "machine"),
    )
    for record, where in records:
        if "memory" in record:
            keys = ("growth_bytes", "bar_bytes", "packed_bytes", "weights_bytes")
            sizes = ("" if record[key] is None else f"{record[key] / 1e6:.0f} MB" for key in keys)
            section.rows.append([record["memory"], record["network"], str(record["calls"]), *sizes, where])
    return section


def plans(records: Iterable[tuple[Record, str]]) -> Section:
    """Replay against whole runs."""
    section = Section(
        "Occlusion by replay",
        "Re-running only what a window changes, per model row, against our own whole runs and against captum. First "
        "call: preparation and planning included, all windows.",
        (
            "network",
            "windows",
            "ours",
            "our whole runs",
            "captum's best",
            "ratio",
            "error",
            "whole runs' error",
            "machine",
        ),
        marks=Marks({"captum's best": (OURS, "o"), "captum's default": (SECOND, "o"), "our whole runs": (SOFT, "s")}),
    )
    for record, where in records:
        if "windows" not in record:
            continue
        seconds, ratios, errors = record["seconds"], record["ratios"], record["errors"]
        theirs = (span(seconds["best"]["median"]), times(ratios["best"])) if "best" in ratios else ("", "")
        cells = (*(span(seconds[side]["median"]) for side in ("local", "dense")), *theirs)
        rms = (error(errors[side]["rms"]) for side in ("local", "dense"))
        section.rows.append([record["case"], str(record["windows"]), *cells, *rms, where])
        marks = {name: ratios[side] for side, name in PEERS.items() if side in ratios}
        section.marks.rows.append((record["case"], marks))
    return section


def modes(records: Iterable[tuple[Record, str]]) -> Section:
    """The fast mode against the exact one."""
    section = Section(
        "The fast mode",
        'mode="fast" against mode="exact"; without instructions for half precision it keeps float32 and gains nothing. '
        "Rank correlation and relative L2 error are between the two maps.",
        ("case", "exact", "fast", "runs in", "ratio", "rank correlation", "relative error", "machine"),
    )
    for record, where in records:
        if "mode" in record:
            seconds = (span(record["seconds"][side]["median"]) for side in ("exact", "fast"))
            close = (f"{record['correlation']['median']:.4f}", error(record["error"]["median"]))
            cells = (record["dtypes"]["fast"], times(record["ratio"]), *close, where)
            section.rows.append([record["case"], *seconds, *cells])
    return section


def estimators(records: Iterable[tuple[Record, str]]) -> Section:
    """Where sampling stops in mode "turbo", and what its maps err by."""
    section = Section(
        "Where sampling stops in the turbo mode",
        "Evaluations that were needed, of those that were allowed; the true error, the error that the result states, "
        "and how many maps lay within the tolerance.",
        ("case", "tolerance", "evaluations", "allowed", "error", "stated", "within", "machine"),
    )
    for record, where in records:
        if "stops" in record:
            counts = (f"{record['evaluations']['median']:.0f}", str(record["allowed"]))
            shares = (f"{record[which]:.1%}" for which in ("error", "stated", "within"))
            section.rows.append([record["case"], f"{record['tolerance']:g}", *counts, *shares, where])
    return section


def zoo(records: Iterable[tuple[Record, str]]) -> Section:
    """How other people's networks are served."""
    section = Section(
        "Architectures",
        "One small network of each family: whether its forward is captured as a graph, which layer `auto` takes, and "
        "how far maps in float32 are from float64 (largest error as a share of the largest value; in brackets the same "
        "of plain PyTorch).",
        ("family", "network", "captured", "layer", "Saliency", "Occlusion", "GradCAM", "machine"),
    )
    for record, where in records:
        if "zoo" in record and "captured" in record:
            found = (record["errors"].get(name) for name in ("Saliency", "Occlusion", "GradCAM"))
            maps = (f"{error(of['ours'])} ({error(of['plain'])})" if of else "refused" for of in found)
            name = f"{record['zoo']}: {record['family']}"
            section.rows.append([name, record["network"], record["captured"], record["layer"], *maps, where])
    return section


def randomisation(records: Iterable[tuple[Record, str]]) -> Section:
    """What maps know of where a class is, and of what the network has learnt."""
    section = Section(
        "Mosaics and random weights",
        "The bundled network. Share: how much of a map of a mosaic of four photographs lies in the class's own cell "
        "(0.25 by chance), with its bar where it has one, and on a few of the mosaics beside the method's slow twin in "
        "float64. Likeness: Spearman's correlation of a map with those of 20 networks of random weights for the same "
        "picture, and, which is chance, for another one; a map that is not above chance changes with the weights.",
        ("method", "share", "bar", "ours, its twin's", "likeness", "by chance", "changes", "machine"),
    )
    for record, where in records:
        if "shares" in record:
            slow, like, least = record["twin"], record["likeness"], record["least"]
            cells = (
                f"{record['share']:.3f}",
                "" if least is None else f"{least:.2f}",
                "" if slow is None else f"{slow['ours']:.5f}, {slow['twin']:.5f}",
                f"{like['random']:.2f}",
                f"{like['chance_least']:.2f} to {like['chance_most']:.2f}",
                "yes" if record["changes"] else "no",
            )
            section.rows.append([record["shares"], *cells, where])
    return section


def planted(records: Iterable[tuple[Record, str]]) -> Section:
    """What audits make of faults that were planted, and of networks without one."""
    section = Section(
        "Audits of networks whose faults are known",
        "Small networks trained on crops of photographs. Used: how often the cue alone makes other crops the class, "
        "and how often the class is lost without it (medians). First: the first finding names the class and what was "
        "planted, and is confirmed. AUROC, of its images against the planted ones in the class, and the share of "
        "exchanged labels among the first k that are said to be wrong, are the worst of all networks. "
        "What is above low in networks without a fault is a false alarm.",
        ("fault", "networks", "used", "first and confirmed", "AUROC", "precision at k", "above low", "machine"),
    )
    for record, where in records:
        if "planted" in record:
            used, first, area = record.get("flips"), record.get("confirmed_first"), record.get("least_auroc")
            count, share = record["networks"], record.get("least_precision_at_k")
            cells = (
                f"{used['insert']:.2f}, {used['remove']:.2f}" if used and max(used.values()) else "",
                "" if first is None else f"{first} of {count}",
                "" if area is None else f"{area:.3f}",
                "" if share is None else f"{share:.3f}",
                f"{record['above_low']} of {count}",
            )
            name = ", ".join(filter(None, (record["planted"], record.get("procedure"))))
            section.rows.append([name, str(count), *cells, where])
    return section


def beside(records: Iterable[tuple[Record, str]]) -> Section:
    """What other tools find in the same sets."""
    tools = ("Datalab", "cleanvision", "SpRAy")
    section = Section(
        "Audits beside other tools",
        "On the same sets. Of the others: AUROC of whichever of their scores tells the planted pictures best from "
        "those of their class, chosen by knowing the truth, and how many images they flag; of Datalab also the "
        "precision at k for exchanged labels. Ours is the AUROC of the finding that names the fault. All are medians.",
        ("fault", "sets", "ours", *tools, "machine"),
    )
    for record, where in records:
        if "beside" not in record or "faults" in record["sets"][0]:
            continue
        sets = record["sets"]
        areas = [one["ours"]["auroc"] for one in sets if one["ours"].get("auroc") is not None]
        ours = f"{statistics.median(areas):.3f}" if areas else "nothing above low"
        if "precision_at_k" in sets[0]["ours"]:
            ours += f"; at k {statistics.median(one['ours']['precision_at_k'] for one in sets):.3f}"
        if not areas:
            ours = f"above low: {sum(one['ours']['above_low'] > 0 for one in sets)} of {len(sets)}"
        cells = []
        for tool in tools:
            found = [one[tool] for one in sets]
            said = [f"flags {statistics.median(sum(one['flagged'].values()) for one in found):.0f}"]
            if all(one.get("auroc") is not None for one in found):
                said.insert(0, f"{statistics.median(one['auroc'] for one in found):.3f} ({found[0]['best']})")
            if tool == "Datalab" and "precision_at_k" in found[0]:
                said.append(f"at k {statistics.median(one['precision_at_k'] for one in found):.3f}")
            cells.append("; ".join(said))
        section.rows.append([record["beside"], str(len(sets)), ours, *cells, where])
    return section


def spoiled(records: Iterable[tuple[Record, str]]) -> Section:
    """Which pictures that were spoiled other tools find in the same sets, and how many they flag."""
    tools = ("ours", "Datalab", "cleanvision")
    section = Section(
        "Audits of spoiled pictures beside other tools",
        "Pictures found of those that were spoiled so, over all sets, and in brackets how many are flagged for it.",
        ("fault", "sets", *tools, "machine"),
    )
    for record, where in records:
        sets = [one["faults"] for one in record.get("sets", ()) if "faults" in one] if "beside" in record else []
        for fault in sets[0] if sets else ():
            cells = []
            for tool in tools:
                own = [(one[fault][tool], one[fault]["planted"]) for one in sets if tool in one[fault]]
                found, planted = sum(each["found"] for each, _ in own), sum(count for _, count in own)
                flagged = sum(each["flagged"] for each, _ in own)
                cells.append(f"{found} of {planted} ({flagged})" if own else "")
            section.rows.append([fault, str(len(sets)), *cells, where])
    return section


SECTIONS: tuple[Callable[[list[tuple[Record, str]]], Section], ...] = (
    methods,
    dropin,
    overhead,
    memory,
    first_calls,
    plans,
    forwards,
    modes,
    estimators,
    randomisation,
    planted,
    beside,
    spoiled,
    zoo,
)


def span(seconds: float) -> str:
    """A time with three digits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def times(ratio: float) -> str:
    """A ratio."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def error(value: float) -> str:
    """An error with two digits."""
    return f"{value:.1e}".replace("e-0", "e-") if value else "0"


if __name__ == "__main__":
    main()
