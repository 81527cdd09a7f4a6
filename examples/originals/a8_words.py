"""lime: which words of a sentence speak for the topic that a text classifier finds, and which against it."""

from __future__ import annotations

from lime.lime_text import LimeTextExplainer
from matplotlib import pyplot as plt
from subject import draws, options

from _topics import classifier  # isort: skip - subject puts its folder on the path

found = classifier()
explainer = LimeTextExplainer(class_names=found.topics, random_state=0)
explanation = explainer.explain_instance(
    found.sentence, found.predict, num_features=10, num_samples=draws(5000, 500), top_labels=1
)
(label,) = explanation.available_labels()
words, weights = zip(*reversed(explanation.as_list(label)), strict=True)
figure, place = plt.subplots(figsize=(9, 4), layout="constrained")
place.barh(words, weights, color=["tab:green" if weight > 0 else "tab:red" for weight in weights])
place.set_title(f"{found.topics[label]}: {found.sentence[:90]}...", fontsize=8)
figure.savefig(options().out, dpi=80)
