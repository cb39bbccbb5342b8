"""The layers that look at one pooled region: its class by text, its exact box, its mask."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from partseg.models import initialise
from partseg.models.classifier import TextClassifier


class BoxHead(nn.Module):
    """Two fully connected layers over the pooled region."""

    def __init__(self, *, in_features: int, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, channels)
        self.fc2 = nn.Linear(channels, channels)
        initialise.xavier(self.fc1)
        initialise.xavier(self.fc2)

    def forward(self, pooled: Tensor) -> Tensor:
        """[N, C, s, s] to [N, channels]."""
        hidden = functional.relu_(self.fc1(pooled.flatten(1)))
        return functional.relu_(self.fc2(hidden))


class BoxPredictor(nn.Module):
    """Class logits by text, and one box correction whatever the class."""

    def __init__(self, *, channels: int, text_dim: int, temperature: float) -> None:
        super().__init__()
        self.cls_score = TextClassifier(in_features=channels, text_dim=text_dim, temperature=temperature)
        first, last = nn.Linear(channels, channels), nn.Linear(channels, 4)
        initialise.xavier(first)
        initialise.normal(last, std=0.001)
        self.bbox_pred = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, regions: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """[N, channels] to logits [N, C + 1] and deltas [N, 4]."""
        return self.cls_score(regions, text), self.bbox_pred(regions)


class MaskHead(nn.Module):
    """A few convolutions, an upsampling and one mask whatever the class."""

    def __init__(self, *, in_channels: int, channels: int, convs: int) -> None:
        super().__init__()
        self.convs = convs
        for i in range(1, convs + 1):
            conv = nn.Conv2d(in_channels if i == 1 else channels, channels, kernel_size=3, padding=1)
            initialise.msra(conv)
            self.add_module(f"mask_fcn{i}", conv)
        self.deconv = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        initialise.msra(self.deconv)
        self.predictor = nn.Conv2d(channels, 1, kernel_size=1)
        initialise.normal(self.predictor, std=0.001)

    def forward(self, pooled: Tensor) -> Tensor:
        """[N, C, s, s] to logits [N, 2s, 2s]."""
        for i in range(1, self.convs + 1):
            pooled = functional.relu_(self.get_submodule(f"mask_fcn{i}")(pooled))
        logits: Tensor = self.predictor(functional.relu_(self.deconv(pooled)))
        return logits[:, 0]
