"""The page of results: one static index.html that opens from disk and asks nothing of the network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from xai_fast._printing import printable
from xai_fast.report.files import write_atomically

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Map:
    """One map of one image, as the page shows it.

    Every text is untrusted and escaped. Paths are absolute or relative to the folder of the page.

    Attributes:
        method: name of the method.
        picture: the PNG to show.
        target: what was explained, such as a class name.
        score: the model's score for the target.
        layer: where the map comes from, for methods that look at one.
        seconds: time it took.
        evaluations: model rows used.
        note: what the colours mean, such as "0 to 0.94, no units, 1.0 % clipped".
        values: the file of raw values to link to.
    """

    method: str
    picture: AnyPath
    target: str = ""
    score: float | None = None
    layer: str = ""
    seconds: float | None = None
    evaluations: int | None = None
    note: str = ""
    values: AnyPath | None = None


@dataclass(frozen=True)
class Item:
    """One image: its photo, what the model predicts, and its maps. Texts and paths as in `Map`.

    Attributes:
        name: what the reader knows the image by, usually its file name.
        photo: the picture to show; None shows the maps alone.
        prediction: the predicted class.
        probability: of the prediction, in [0, 1].
        maps: in the order to show them.
    """

    name: str
    photo: AnyPath | None = None
    prediction: str = ""
    probability: float | None = None
    maps: Sequence[Map] = ()


@dataclass(frozen=True)
class Failure:
    """What was asked for and is not there, and why; `method` is empty when the image itself failed."""

    name: str
    reason: str
    method: str = ""


def write_page(
    path: AnyPath,
    title: str,
    items: Sequence[Item],
    *,
    failures: Sequence[Failure] = (),
    facts: Mapping[str, object] | None = None,
) -> Path:
    """Write the page, whole or not at all.

    The page holds no script and loads nothing but the pictures, which stay in their files: a page with the
    pictures inside would grow beyond what browsers open.

    Args:
        path: the file to make, usually `index.html` in the folder of the pictures.
        title: the heading.
        items: the images in order; the page says so when there are none.
        failures: listed before the images.
        facts: the footer, such as {"model": "resnet50", "date": "2026-01-31", "torch": "2.11.0"}.

    Returns:
        `path` as a Path.
    """
    # Jinja2 takes longer to import than the rest of this package, and only pages need it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    path = Path(path)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["seconds"] = _seconds
    environment.filters["href"] = lambda target: href(target, path.parent)
    html = environment.get_template("page.html").render(
        title=title,
        items=items,
        failures=failures,
        facts=facts or {},
        n_maps=sum(len(item.maps) for item in items),
    )
    # File names that are not Unicode arrive as lone surrogates, which UTF-8 cannot hold.
    return write_atomically(path, lambda file: file.write(html.encode("utf-8", "replace")))


def href(target: AnyPath, folder: AnyPath) -> str:
    """The percent-encoded link from a page in `folder` to the file `target`, absolute or relative to it.

    Every reserved character is encoded, a colon too: no name can pose as a query, a fragment or a scheme.
    """
    if os.path.isabs(target):
        target = os.path.relpath(target, os.path.abspath(folder))
    return quote(os.fsencode(Path(target).as_posix()), safe="/")


def _shown(value: object) -> object:
    """A text as the page shows it: a control character in a name must not act where the page's source is printed."""
    return printable(value) if type(value) is str else value


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 0.9995 else f"{value:.3g} s" if value < 100 else f"{value / 60:.0f} min"
