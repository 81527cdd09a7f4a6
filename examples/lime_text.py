"""Which words give a text away: LIME and Shapley values of a small text classifier, as coloured pages.

    python examples/lime_text.py --out lime_text.html

The classifier (term frequencies and a logistic regression, by scikit-learn) reads sentences from the documentation of
four Python libraries and says which library they are about. Words in one colour speak for the answer, in the other
against it; the deeper, the more.
"""

from __future__ import annotations

from pathlib import Path

from _command_line import parse
from _topics import classifier

import xai_fast as xf


def main(arguments: list[str] | None = None) -> Path:
    """Writes the page and returns its path."""
    options = parse(__doc__, "lime_text.html", arguments)
    asked = classifier()
    samples = 500 if options.coarse else 5000
    found = [
        method(asked.predict, n_samples=samples, classes=asked.topics).explain(asked.sentence)
        for method in (xf.LimeText, xf.ShapleyText)
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lime, shapley = (explanation.as_html() for explanation in found)
    options.out.write_text(lime, encoding="utf-8")
    beside = options.out.with_name(f"{options.out.stem}_shapley.html")
    beside.write_text(shapley, encoding="utf-8")
    word, weight = found[0].as_list()[0]
    print(
        f"{asked.right:.0%} of {asked.unseen} unseen sentences right; {word!r} weighs {weight:+.2f} for "
        f"{found[0].target_name!r} (p = {found[0].score:.2f}); wrote {beside.name}, wrote {options.out}"
    )
    return options.out


if __name__ == "__main__":
    main()
