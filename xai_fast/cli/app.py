"""The commands and their options; each hands over to the module of its name."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .audit_app import audit_app
from .interrupts import INTERRUPTED, stopping
from .usage import Mode, folder_named, split, usage

FAILED_ITEMS = 3
_OUT = typer.Option(
    "--out", "-o", help="Folder for pictures, values and index.html.", parser=folder_named, metavar="PATH"
)

app = typer.Typer(
    name="xai-fast",
    help="Explain what a vision model looks at: the methods you know, the same numbers, much faster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(audit_app)


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Photographs: any format that Pillow reads.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="demo, torchvision:NAME, or FILE.py:FUNCTION that returns a model.")
    ] = "demo",
    method: Annotated[
        list[str] | None,
        typer.Option(help="Repeat or separate by commas; `xai-fast methods` lists them. (default: GradCAM,Occlusion)"),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="What to explain: a class by index or name. (default: the predicted class)")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="The layer to look at, for methods that look at one. (default: the method's)")
    ] = None,
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
    out: Annotated[Path, _OUT] = Path("out"),
) -> None:
    """Explain photographs with one or several methods.

    Writes STEM.png (photo and maps side by side), STEM.METHOD.png, STEM.METHOD.safetensors and index.html.
    Exit codes: 0 all explained, 2 wrong usage and nothing ran, 3 some images or methods failed, 130 interrupted.
    """
    from .folder import Folder

    names = split(["GradCAM", "Occlusion"] if method is None else method)
    with stopping() as interrupts, ExitStack() as stack:
        with usage():
            if not names:
                raise ValueError("`--method` came empty; `xai-fast methods` lists what fits, such as GradCAM")
            folder = stack.enter_context(Folder(out, tuple(images)))
            from .explain import Request, prepare, run

            request = Request(tuple(images), model, names, target, layer, tuple(settings or ()), weights)
            job = prepare(request, mode.value)
        failed = run(job, folder, interrupts)
    _end(interrupts.came, failed)


@app.command()
def demo(
    out: Annotated[Path, _OUT] = Path("demo"),
    all_methods: Annotated[
        bool, typer.Option("--all", help="Every method, and a table of how well each finds the truth (minutes).")
    ] = False,
    mosaics: Annotated[
        int | None,
        typer.Option(min=1, help="With --all: mosaics with a known truth that methods are scored on. (default: 12)"),
    ] = None,
) -> None:
    """Explain six photographs with the bundled model and one method of each family.

    With --all every method runs, and is scored on mosaics of four photographs: the truth is each one's Shapley value.
    """
    from .folder import Folder

    with stopping() as interrupts, ExitStack() as stack:
        with usage():
            if mosaics is not None and not all_methods:
                raise ValueError("`--mosaics` is about the table of truth; give --all too")
            folder = stack.enter_context(Folder(out))
            from .demo import run
        failed = run(folder, (mosaics or 12) if all_methods else None, interrupts)
    _end(interrupts.came, failed)


@app.command()
def methods() -> None:
    """List the methods: what each answers, costs, and where it was published."""
    from .methods import run

    run()


@app.command()
def doctor() -> None:
    """Say what this machine offers: versions, devices, and every op with its backends."""
    from .doctor import run

    run()


def _end(interrupted: bool, failed: int) -> None:
    """The exit code of a run that began."""
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if failed:
        raise typer.Exit(FAILED_ITEMS)
