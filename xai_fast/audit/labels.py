"""Which output of the model each label of a data set is."""

from __future__ import annotations

from collections.abc import Sequence

from .manifest import Manifest


def labels_of(manifest: Manifest, classes: Sequence[str] | None) -> dict[str, int]:
    """Class indices by the labels' names, of those that are known to be outputs of the model.

    A name of a class is that class, a number that index. Where the model's classes have no names, labels in the order
    of their names are 0, 1, ..., as torchvision's `ImageFolder` has it.

    Args:
        manifest: with labels.
        classes: names of the model's outputs.
    """
    names = sorted({name for name in manifest.table.column("label").to_pylist() if name is not None})
    known = {name: n for n, name in enumerate(classes or ())}
    if found := {name: known[name] for name in names if name in known}:
        return found
    numbers = {name: int(name) for name in names if name.isdecimal()}
    if names and len(numbers) == len(names):
        return numbers
    return {} if classes is not None else {name: n for n, name in enumerate(names)}
