"""shap's partition explainer of a photograph's four highest classes, hiding by blur, 500 evaluations."""

import numpy as np
import shap
import torch
from subject import keep, network, normalised, pixels

model = network()


def predict(images: np.ndarray) -> torch.Tensor:
    return model(torch.stack([normalised(image) for image in images.astype(np.uint8)])).softmax(1)


image = pixels()
masker = shap.maskers.Image("blur(128,128)", image.shape)
explainer = shap.Explainer(predict, masker)
shap_values = explainer(
    image[None], max_evals=500, batch_size=50, outputs=shap.Explanation.argsort.flip[:4], silent=True
)
keep(shap_values.values)
