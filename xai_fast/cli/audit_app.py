"""The commands of `xai-fast audit` and their options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .interrupts import stopping
from .usage import Mode, folder_named, split, usage


class ExecutorName(StrEnum):
    """Who works on the shards."""

    local = "local"
    ray = "ray"


audit_app = typer.Typer(
    name="audit",
    help="Attributions of a whole data set: killed at any moment, resumed without loss.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_OUT = typer.Option(
    "--out", "-o", help="Folder of the run; one that is there goes on.", parser=folder_named, metavar="PATH"
)
Out = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")]
Share = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Only every N-th shard from the I-th (0 to N-1) on.")
]
Executor = Annotated[
    ExecutorName, typer.Option(help="local: this process; ray: actors of Ray's, at RAY_ADDRESS or on this machine.")
]
Actors = Annotated[int | None, typer.Option(min=1, help="With --executor ray. (default: one per GPU)")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that decode. (default: by the processors)")]


@audit_app.command()
def run(
    data: Annotated[str, typer.Option("--data", "-d", help="Folder of images, .csv or .parquet, .tar, or a URL.")],
    out: Annotated[Path, _OUT],
    model: Annotated[
        str, typer.Option("--model", "-m", help="demo, torchvision:NAME, or FILE.py:FUNCTION that returns a model.")
    ] = "demo",
    method: Annotated[
        list[str] | None, typer.Option(help="Repeat or separate by commas; see `xai-fast methods`. (default: GradCAM)")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="A class by index or name, or label: the image's. (default: the predicted class)")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="The layer to look at. (default: the method's)")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A method's setting: window=15, or Occlusion.window=15."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A safetensors or .pth file, or none for random. (default: the model's own)")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="exact: the model's own precision; fast: half; turbo: estimators stop early, too.")
    ] = Mode.exact,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Model rows per forward. (default: the device's)")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Images per shard, which is what a killed run loses at most.")
    ] = None,
    time_out: Annotated[float, typer.Option(help="Seconds that decoding one image may take.")] = 30.0,
    tune: Annotated[bool, typer.Option("--tune", help="Measure what is fast first, and freeze that.")] = False,
    noisy: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the images that are explained once more on a slightly noisy copy, for the check `unstable`; "
            "costs that share of the model's time again, memory of one further batch, 12 bytes per image and method.",
        ),
    ] = 0.0,
    shard: Share = None,
    workers: Workers = None,
    executor: Executor = ExecutorName.local,
    actors: Actors = None,
) -> None:
    """Attribute every image of a data set, into a folder of Parquet files.

    The plan is frozen first; the same command on a folder with the same plan goes on with it. An image that cannot be
    read or explained is a row whose status is not ok.
    Exit codes: 0 all done, 2 wrong usage and nothing ran, 3 done with failed images, 4 incomplete: resume it.
    """
    with stopping() as interrupts, usage():
        from .audit import Hands, order_of
        from .audit import run as work

        order = order_of(
            model,
            data,
            split(["GradCAM"] if method is None else method),
            tuple(settings or ()),
            layer,
            target,
            weights=weights,
            mode=mode.value,
            batch_size="auto" if batch_size is None else batch_size,
            shard_size=shard_size,
            time_out=time_out,
            tune=tune,
            noisy=noisy,
        )
        code = work(order, out, Hands(_share(shard), workers, executor.value, actors), interrupts)
    raise typer.Exit(code)


@audit_app.command()
def resume(
    out: Out,
    shard: Share = None,
    workers: Workers = None,
    executor: Executor = ExecutorName.local,
    actors: Actors = None,
) -> None:
    """Go on with a run, from what its plan says.

    Exit codes: as of `run`.
    """
    with stopping() as interrupts, usage():
        from .audit import Hands
        from .audit import resume as work

        code = work(out, Hands(_share(shard), workers, executor.value, actors), interrupts)
    raise typer.Exit(code)


@audit_app.command()
def status(
    out: Out,
    failed: Annotated[bool, typer.Option("--failed", help="List the images that failed, and why.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every shard and compare its checksums.")] = False,
) -> None:
    """Say how far a run is, and what failed.

    Exit codes: 0 all done, 2 no run, 3 done with failed images, 4 incomplete or damaged.
    """
    with usage():
        from .audit import status as work

        code = work(out, failed, verify)
    raise typer.Exit(code)


@audit_app.command()
def export(
    out: Out,
    csv: Annotated[Path | None, typer.Option(help="File for the rows, without maps and embeddings.")] = None,
    overlays: Annotated[Path | None, typer.Option(help="Folder for pictures with their maps.")] = None,
    virelay: Annotated[Path | None, typer.Option(help="Folder for a project of ViRelAy (needs h5py).")] = None,
    fiftyone: Annotated[Path | None, typer.Option(help="Folder for a data set that FiftyOne imports.")] = None,
    method: Annotated[str | None, typer.Option(help="Whose maps are drawn. (default: the first)")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Pictures at most.")] = None,
) -> None:
    """Write a run's rows as CSV, its maps over the photographs, or what ViRelAy and FiftyOne open."""
    with usage():
        from .audit import export as work

        work(out, csv, {"overlays": overlays, "virelay": virelay, "fiftyone": fiftyone}, method, limit)


@audit_app.command()
def check(
    out: Out,
    method: Annotated[str | None, typer.Option(help="Whose maps are looked at. (default: the first)")] = None,
    confirm: Annotated[
        bool, typer.Option(help="Take cues out of held-out images and put them into others, to see what changes.")
    ] = True,
) -> None:
    """Say what is wrong with the model or its data, the gravest first, and keep it as findings.json.

    A claim that rests on a cue is tested on images that no check looked at; unconfirmed claims are low and come last.
    """
    with usage():
        from .audit_findings import check as work

        work(out, method, confirm)


@audit_app.command()
def report(
    out: Out,
    to: Annotated[Path | None, typer.Option(help="Folder of the site. (default: report, in the run's)")] = None,
    again: Annotated[bool, typer.Option("--again", help="Check a run again that was checked.")] = False,
) -> None:
    """Write a site about a run that opens from disk: index.html, and pictures. Checks the run where that is left."""
    with usage():
        from .audit_findings import report as work

        work(out, to, again)


def _share(text: str | None) -> tuple[int, int]:
    index, slash, count = (text or "0/1").partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"`--shard` came as {text!r}; give I/N with I from 0 to N - 1, such as 0/8")
    return int(index), int(count)
