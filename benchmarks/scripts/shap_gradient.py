"""shap's GradientExplainer of a photograph's two highest classes, against 8 other photographs, 200 draws each."""

import numpy as np
import shap
import torch
from subject import keep, network, photograph

model, image = network(), photograph()
background = torch.cat([photograph(number) for number in range(1, 9)])
explainer = shap.GradientExplainer(model, background)
shap_values, indexes = explainer.shap_values(image, ranked_outputs=2, rseed=0)
keep(np.asarray(shap_values))
