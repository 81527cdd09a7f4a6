"""`xf.audit.report`: the site of a run, its pictures and its one page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_fast._printing import printable
from xai_fast.audit.checks import duplicates, picture_quality
from xai_fast.audit.checks.checking import CHECKS
from xai_fast.audit.checks.clusters import Group
from xai_fast.audit.checks.records import Records, records_of
from xai_fast.audit.checks.regions import GRID
from xai_fast.audit.checks.storing import Findings, findings_of
from xai_fast.audit.photographs import Photographs, photographs_of
from xai_fast.audit.reading import AuditRun, read
from xai_fast.audit.store.schema import OK
from xai_fast.report import write_atomically

from .performance import FALSE_ALARMS, performance
from .plots import INKS, NAMES, write_plots
from .rows import chunks, escaped
from .sheets import COLUMNS, ROWS, TILES, Gallery, write_gallery

_FAILURES = 100  # that are listed beside the table
_GROUPS = 60  # that are shown
_OF_PHOTOGRAPHS = (duplicates.NAME, picture_quality.NAME)  # checks whose claims a map would only hide

_Wanted = tuple[Sequence[int], NDArray[np.floating] | None]
"""What a gallery shows: images by their places, and a map of them all."""


def report(run: AuditRun | str | Path, *, out: str | Path | None = None, data: Any = None) -> Path:
    """Writes a static site about a run that was checked: `index.html`, and sheets of pictures beside it.

    It opens from disk, and loads nothing but its own pictures. Names of files and classes are shown as text, whatever
    they hold; script and style are admitted by their hashes alone.

    Args:
        run: a run that `check` has looked at, or its folder.
        out: folder of the site; None: `report` in the run's.
        data: what `audit` was given, where that was an object; for the pictures.

    Returns:
        The page.

    Raises:
        ValueError: the run was not checked.
    """
    run = run if isinstance(run, AuditRun) else read(run)
    findings, folder = findings_of(run.directory), Path(out or run.directory / "report")
    records = records_of(run, findings.method)
    groups = findings.groups[:_GROUPS]
    wanted: list[_Wanted] = [(one.positions, None) for one in findings]
    wanted += [(_surest_errors(records), None), *((one.positions, _mean_map(one)) for one in groups)]
    galleries: list[Gallery | None] = [None] * len(wanted)
    said = ""
    with ExitStack() as stack:
        try:
            photographs = stack.enter_context(photographs_of(run, data))
        except (ValueError, TypeError, OSError) as error:
            said = str(error)
        else:
            galleries = _galleries(run, photographs, findings.method, wanted, folder / "pictures")
    no_plots = write_plots(records, folder / "pictures")
    html = _page(run, findings, records, galleries, {"no_pictures": said, "no_plots": no_plots})
    return write_atomically(folder / "index.html", lambda file: file.write(html.encode("utf-8", "replace")))


def _galleries(
    run: AuditRun, photographs: Photographs, method: str, wanted: Sequence[_Wanted], folder: Path
) -> list[Gallery | None]:
    return [
        write_gallery(run, photographs, method, positions[: 2 * TILES], number, folder, mean)
        if len(positions)
        else None
        for number, (positions, mean) in enumerate(wanted)
    ]


def _mean_map(group: Group) -> NDArray[np.floating]:
    return np.array(group.grid).reshape(GRID, GRID)


def _surest_errors(records: Records) -> list[int]:
    wrong = np.flatnonzero(records.wrong)
    order = np.argsort(-records.numbers["probability"][wrong], kind="stable")
    return records.position[wrong[order]].tolist()


def _page(
    run: AuditRun,
    findings: Findings,
    records: Records,
    galleries: Sequence[Gallery | None],
    lacking: Mapping[str, str],
) -> str:
    # Jinja2 takes longer to import than the rest of this package, and only pages need it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["number"] = _number
    plain = {number for number, one in enumerate(findings) if one.check in _OF_PHOTOGRAPHS}
    style = (here / "page.css").read_text(encoding="utf-8") + _cut_out(galleries, plain) + _plotted()
    script = (here / "page.js").read_text(encoding="utf-8")
    lines, failed = performance(records), _failures(run)
    return environment.get_template("page.html").render(
        # What is marked as safe in the template is ours, or was escaped by `rows.escaped`.
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        chunks=list(chunks(run, findings)),
        classes=escaped([printable(name) for name in records.classes]),
        title=run.directory.resolve().name,
        method=findings.method,
        n_images=findings.images,
        n_failed=findings.failed,
        complete=findings.complete,
        overall=lines[0] if lines else None,
        lines=lines[1:],
        alarms=FALSE_ALARMS,
        findings=findings.found,
        states=sorted({one.confirmation.state for one in findings}),
        checks=sorted({one.check for one in findings}),
        galleries=galleries[: len(findings)],
        errors=galleries[len(findings)],
        groups=list(zip(findings.groups, galleries[len(findings) + 1 :], strict=False)),
        n_groups=len(findings.groups),
        group_classes=[records.name(index) for index in sorted({one.class_index for one in findings.groups[:_GROUPS]})],
        named=records.name,
        skipped=findings.skipped,
        n_wrong=int(records.wrong.sum()),
        failures=failed,
        names=_names(run, records, galleries),
        **lacking,
        facts=_facts(run),
        questions={module.NAME: module.QUESTION for module in CHECKS},
    )


def _cut_out(galleries: Sequence[Gallery | None], plain: Set[int]) -> str:
    """The rules that show a tile of a sheet: `g` is the gallery, `p` the place; tiles of `plain` are photographs."""
    rules = []
    for n in range(TILES):
        left, top = 100 * (n % COLUMNS) / (COLUMNS - 1), 100 * (n // COLUMNS) / (ROWS - 1)
        rules.append(f".p{n} {{ background-position: {left:.4f}% {top:.4f}%; }}")
    for one in galleries:
        if one is not None:
            rules.append(f'.g{one.number} {{ background-image: url("pictures/{one.number}-maps.jpg"); }}')
            photos = f'background-image: url("pictures/{one.number}-photos.jpg");'
            tile = ".tile" if one.number in plain else ".photos .tile"
            rules.append(f".photo.g{one.number}, {tile} .g{one.number} {{ {photos} }}")
    return "\n".join(rules) + "\n"


def _plotted() -> str:
    """The rules that show plots, in the colours of the screen."""
    light, dark = (
        [f'.{name} {{ background-image: url("pictures/{name}-{ink}.svg"); }}' for name in NAMES] for ink in INKS
    )
    return "\n".join([*light, "@media (prefers-color-scheme: dark) {", *dark, "}"]) + "\n"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _names(run: AuditRun, records: Records, galleries: Sequence[Gallery | None]) -> dict[int, dict[str, str]]:
    """What is told under each picture."""
    shown = sorted({position for one in galleries if one is not None for position in one.positions})
    place = {int(position): row for row, position in enumerate(records.position.tolist())}
    size = int(run.plan.fixed["shard_size"])
    uris: dict[int, str] = {}
    for index in sorted({position // size for position in shown}):
        column = run.shards.read(index, ["uri"]).column("uri")
        uris |= {position: column[position - index * size].as_py() for position in shown if position // size == index}
    found = {}
    for position in shown:
        row = place[position]
        label, prediction = int(records.label[row]), int(records.prediction[row])
        told = records.name(prediction) if prediction >= 0 else ""
        if label >= 0 and label != prediction:
            told = f"{records.name(label)} → {told}"
        found[position] = {"uri": uris[position], "told": told}
    return found


def _failures(run: AuditRun) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for index in run.done:
        if len(found) >= _FAILURES:
            break
        rows = run.shards.read(index, ["uri", "status", "error"]).to_pylist()
        found += [row for row in rows if row["status"] != OK]
    return found[:_FAILURES]


def _facts(run: AuditRun) -> dict[str, str]:
    """The run card."""
    fixed, about = run.plan.fixed, run.plan.about
    attribution, order = fixed["attribution"], about.get("order") or {}
    images = fixed["manifest"]
    return {
        "begun": about.get("made", ""),
        "model": f"{order.get('model', 'given from Python')}, SHA-256 {str(attribution.get('model', ''))[:16]}",
        "data": f"{order.get('data', 'given from Python')}, SHA-256 {images['sha256'][:16]}",
        "images": f"{images['images']:,} in {len(run.plan.sizes):,} shards",
        "methods": "; ".join(one.get("method", one["label"]) for one in attribution["methods"]),
        "explained": str(attribution.get("target") or "the predicted class"),
        "device": f"{attribution.get('device', '')}, mode {attribution.get('mode', '')}",
        "preprocessing": str(attribution.get("preprocess", "")),
        "versions": ", ".join(f"{name} {version}" for name, version in fixed.get("versions", {}).items()),
        "fingerprint": run.plan.fingerprint[:16],
    }


def _number(value: Any, name: str) -> str:
    """Evidence as it is read: shares in per cent, else three digits, and small p-values by their power."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{100 * value:.1f} %" if name.startswith(("share", "wrong of")) else f"{value:.3g}"
