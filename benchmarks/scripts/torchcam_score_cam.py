"""torchcam's ScoreCAM of a photograph's predicted class, at the last stage."""

from subject import keep, network, photograph
from torchcam.methods import ScoreCAM

model, image = network(), photograph()
with ScoreCAM(model, "layer4") as extractor:
    scores = model(image)
    maps = extractor(scores.squeeze(0).argmax().item(), scores)
keep(maps[0])
