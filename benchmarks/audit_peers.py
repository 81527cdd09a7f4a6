"""What other tools find in sets with planted faults, beside our audit, and what they raise on clean sets.

usage: python benchmarks/audit_peers.py --keep FOLDER [--seeds A B] [--clean A B] [--spoiled A B] [--json FILE]

On the sets, networks and maps that `planted.py` keeps: cleanlab's Datalab (labels, the network's embeddings,
probabilities of a classifier that was fitted on other folds, and the images, as its documentation asks), cleanvision
on the folder of images, and SpRAy (Lapuschkin et al. 2019): maps, shrunk and of unit sum, per class in spectral
clusters whose number is that of the largest gap of eigenvalues. None of them names a class and a cue; so what counts
is whether anything that they raise tells the planted pictures from the others of their class (AUROC, of whichever of
their scores does it best, chosen by knowing the truth), and how many of the exchanged labels are among the first k.

On the sets of `spoiled.py` every tool is asked for each kind of fault by the names that it has for it: how many of the
planted rows it flags, and how many others. Crops of one photograph that are nearly as large as it are duplicates too,
and some photographs have no colour, so that others need not be false.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import save
from numpy.typing import NDArray
from planted import judged
from planted_data import Audited, audited, kinds
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from spoiled import TWINS, Spoiled, spoiled

import xai_fast as xf
from xai_fast.audit.checks.records import records_of
from xai_fast.audit.reading import AuditRun

Scores = dict[str, NDArray[np.floating]]
"""(n,) per kind of issue, the larger the worse."""


@dataclass(frozen=True, eq=False)
class Set:
    """What a tool is given: a table with its pictures beside it, labels, and the records of a run."""

    data: Path
    label: NDArray[np.integer]
    run: AuditRun


def datalab(given: Set) -> tuple[Scores, Scores, list[str]]:
    """Scores and flags of its issues, and what it says of the whole set."""
    from cleanlab import Datalab
    from datasets import Dataset, Image, disable_progress_bars

    disable_progress_bars()
    records = records_of(given.run)
    assert records.embedding is not None
    features = records.embedding.astype(np.float64)
    chances: Any = cross_val_predict(
        LogisticRegression(C=100.0, max_iter=300), features, given.label, cv=5, method="predict_proba"
    )
    paths = [str(given.data.parent / f"{n:05d}.png") for n in range(len(given.label))]
    held = Dataset.from_dict({"image": paths, "label": given.label.tolist()}).cast_column("image", Image())
    with contextlib.redirect_stdout(io.StringIO()):
        lab = Datalab(data=held, label_name="label", image_key="image", verbosity=0)
        lab.find_issues(pred_probs=chances, features=features)
    issues = lab.get_issues()
    names = [name.removesuffix("_score") for name in issues if name.endswith("_score")]
    scores = {name: 1 - issues[f"{name}_score"].to_numpy(float) for name in names}
    flags = {name: issues[f"is_{name}_issue"].to_numpy(bool) for name in names}
    said = []
    with contextlib.suppress(ValueError, KeyError):
        tied = lab.get_info("spurious_correlations")
        limit = tied["threshold"]
        table = tied["correlations_df"]
        said = [f"{row.property}: {row.score:.2f}" for row in table.itertuples() if row.score < limit]
    with contextlib.suppress(ValueError, KeyError):
        said.append(f"order, p: {lab.get_info('non_iid')['p-value']:.3g}")
    return scores, flags, said


def cleanvision(given: Set) -> tuple[Scores, Scores, list[str]]:
    """Likewise."""
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()):
        lab = Imagelab(data_path=str(given.data.parent))
        lab.find_issues(n_jobs=1, verbose=False)
    table = lab.issues.sort_index()
    assert [Path(name).name for name in table.index] == [f"{n:05d}.png" for n in range(len(given.label))]
    names = [name.removeprefix("is_").removesuffix("_issue") for name in table if name.startswith("is_")]
    flags = {name: table[f"is_{name}_issue"].to_numpy(bool) for name in names}
    scores = {name: 1 - table[f"{name}_score"].to_numpy(float) for name in names if f"{name}_score" in table}
    return scores, flags, []


def spray(given: Set) -> tuple[Scores, Scores, list[str]]:
    """Clusters of each class's maps; the score of a cluster is membership, its flag that there is more than one."""
    from sklearn.cluster import SpectralClustering
    from sklearn.neighbors import kneighbors_graph

    records = records_of(given.run)
    scores: Scores = {}
    flags: Scores = {}
    said = []
    for index in np.unique(records.target).tolist():
        rows = np.flatnonzero((records.target == index) & np.isfinite(records.grid).all(1))
        if len(rows) < 20:
            continue
        graph = kneighbors_graph(records.grid[rows], 10, include_self=True).toarray()
        graph = (graph + graph.T) / 2
        degree = 1 / np.sqrt(graph.sum(1))
        values = np.linalg.eigvalsh(np.eye(len(rows)) - degree[:, None] * graph * degree)[:8]
        count = int(np.argmax(np.diff(values))) + 1
        if count == 1:
            continue
        said.append(f"{records.name(index)}: {count} clusters")
        clusters = SpectralClustering(count, affinity="precomputed", random_state=0).fit_predict(graph)
        for number in range(count):
            member = np.zeros(len(records))
            member[rows[clusters == number]] = 1
            scores[f"{records.name(index)}, cluster {number}"] = member
            flags[f"{records.name(index)}, cluster {number}"] = member.astype(bool)
    return scores, flags, said


TOOLS = {"Datalab": datalab, "cleanvision": cleanvision, "SpRAy": spray}


def seen_by(found: Audited, tool: str) -> dict[str, Any]:
    """What a tool makes of a set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores, flags, said = TOOLS[tool](Set(found.data, found.made.label.numpy(), found.run))
    made = found.made
    own = made.true.numpy() == made.index
    record: dict[str, Any] = {
        "flagged": {name: int(flag.sum()) for name, flag in flags.items() if flag.any()},
        "said": said,
    }
    if made.kind.edit is not None:
        areas = {name: float(roc_auc_score(made.marked[own], score[own])) for name, score in scores.items()}
        best = max(areas, key=lambda name: areas[name], default=None)
        record |= {"best": best, "auroc": None if best is None else areas[best]}
    if made.kind.flipped:
        exchanged = (made.label != made.true).numpy()
        count = int(exchanged.sum())
        score = scores.get("label")
        first = [] if score is None else np.argsort(-score, kind="stable")[:count].tolist()
        record["precision_at_k"] = float(exchanged[first].sum() / count)
    return record


_PHOTOGRAPH = {
    "dark": "dark",
    "bright": "light",
    "next to empty": "low_information",
    "blurred": "blurry",
    "without colour": "grayscale",
    "of an odd size": "odd_size",
    "of odd proportions": "odd_aspect_ratio",
}
NAMED: dict[str, dict[str, tuple[str, ...]]] = {
    "Datalab": {
        **{fault: ("near_duplicate", "exact_duplicates", "near_duplicates") for fault in TWINS},
        **{fault: (name,) for fault, name in _PHOTOGRAPH.items()},
        **{fault: ("outlier",) for fault in ("outlier", "of another thing")},
        "wrong label": ("label",),
    },
    "cleanvision": {
        **{fault: ("exact_duplicates", "near_duplicates") for fault in TWINS},
        **{fault: (name,) for fault, name in _PHOTOGRAPH.items()},
    },
    "ours": {
        **{fault: ("duplicates",) for fault in TWINS},
        **{fault: (fault,) for fault in _PHOTOGRAPH},
        **{fault: ("outliers",) for fault in ("outlier", "of another thing")},
        "wrong label": ("mislabelled",),
    },
}
"""What each tool calls what was planted."""


def ours(found: Spoiled) -> tuple[Scores, list[str]]:
    """Flags of our checks: of pictures by fault, of the others by check; and what is said of the whole set."""
    flags: Scores = {}
    said = []
    for one in xf.audit.check(found.run, **found.given):
        name = str(one.evidence.get("fault", one.check))
        rows = flags.setdefault(name, np.zeros(len(found.label), bool))
        # Of labels and outliers, what may be one is listed behind what is said to be.
        said_first = one.check in ("mislabelled", "outliers")
        rows[list(one.positions[: one.evidence["images"]] if said_first else one.positions)] = True
        if one.check in ("order of images", "duplicates") or one.severity != "low":
            said.append(f"{one.severity}: {one.title}")
    return flags, said


def of_spoiled(found: Spoiled) -> dict[str, Any]:
    """Per fault and tool how many of the planted rows it flags, and how many others."""
    flags, said = {}, {}
    flags["ours"], said["ours"] = ours(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tool in ("Datalab", "cleanvision"):
            _, flags[tool], said[tool] = TOOLS[tool](Set(found.data, found.label, found.run))
    faults = {}
    for fault, rows in found.planted.items():
        faults[fault] = {"planted": len(rows)}
        for tool, names in NAMED.items():
            if fault in names:
                raised = np.zeros(len(found.label), bool)
                for name in names[fault]:
                    raised |= np.asarray(flags[tool].get(name, raised), bool)
                faults[fault][tool] = {"found": int(raised[rows].sum()), "flagged": int(raised.sum())}
    return {"faults": faults, "said": said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, help="folder of sets, weights and runs, as of planted.py")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 2), help="of planted sets: from, up to but without")
    parser.add_argument("--clean", type=int, nargs=2, default=(0, 0), help="of clean sets")
    parser.add_argument("--spoiled", type=int, nargs=2, default=(0, 0), help="of sets with spoiled pictures")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [(seed, kind) for seed in range(*chosen.seeds) for kind in kinds(seed) if kind.check]
    wanted += [(seed, kind) for seed in range(*chosen.clean) for kind in kinds(seed) if kind.name == "clean"]
    records: dict[str, dict[str, Any]] = {}
    for seed in range(*chosen.spoiled):
        found = of_spoiled(spoiled(seed, chosen.keep / f"{seed}-spoiled"))
        records.setdefault("spoiled", {"beside": "spoiled pictures", "sets": []})["sets"].append(
            {"seed": seed, **found}
        )
        for fault, by in found["faults"].items():
            print(f"{fault:22}", by)
        print(found["said"])
    for seed, kind in wanted:
        found = audited(kind, seed, chosen.keep / f"{seed}-{kind.name.replace(' ', '-')}")
        sets = records.setdefault(kind.name, {"beside": kind.name, "sets": []})["sets"]
        sets.append({"seed": seed, "ours": judged(found), **{tool: seen_by(found, tool) for tool in TOOLS}})
        print(kind.name, {tool: {k: v for k, v in sets[-1][tool].items() if k != "flagged"} for tool in TOOLS})
    if chosen.json:
        save(chosen.json, 1, list(records.values()))


if __name__ == "__main__":
    main()
