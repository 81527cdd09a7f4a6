"""lime's explanation of a photograph's predicted class through a function around a torch network, 1000 samples."""

import numpy as np
import torch
from lime import lime_image
from subject import keep, network, normalised, pixels

model = network()


def batch_predict(images: np.ndarray) -> np.ndarray:
    batch = torch.stack([normalised(image) for image in images])
    with torch.no_grad():
        return model(batch).softmax(1).numpy()


explainer = lime_image.LimeImageExplainer(random_state=0)
explanation = explainer.explain_instance(
    pixels(), batch_predict, top_labels=1, hide_color=0, num_samples=1000, random_seed=0
)
keep([weight for _, weight in sorted(explanation.local_exp[explanation.top_labels[0]])])
