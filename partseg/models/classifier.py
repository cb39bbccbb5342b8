"""Open-vocabulary classification: a region is compared with the embedding of each class name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class TextClassifier(nn.Module):
    """Cosine similarity, times a temperature, between a region and every text.

    The classes are no parameters: they come with each call, so one network works with any vocabulary.
    """

    def __init__(self, *, in_features: int, text_dim: int, temperature: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, text_dim)
        self.temperature = temperature

    def forward(self, regions: Tensor, text: Tensor) -> Tensor:
        """Compare regions with texts.

        Args:
            regions: [N, in_features].
            text: [C, text_dim], rows of any length.

        Returns:
            Logits [N, C + 1]; the last column is the background's, which is always 0.
        """
        projected = self.temperature * functional.normalize(self.linear(regions), dim=1)
        logits = projected @ functional.normalize(text.to(projected.dtype), dim=1).t()
        return torch.cat([logits, logits.new_zeros(len(logits), 1)], dim=1)
