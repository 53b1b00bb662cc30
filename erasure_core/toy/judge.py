"""The judge of the embedded model: a small classifier of the object, style and background colour of a picture.

It was trained on real renders, also after a pass through the autoencoder, and never on generated pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .captions import COLOURS, OBJECTS, STYLES
from .config import WEIGHTS

CHANNELS = (16, 32, 64, 96)


@dataclass(frozen=True)
class Verdict:
    """The names that the judge gives to the objects, styles and colours of n pictures."""

    objects: list[str]
    styles: list[str]
    colours: list[str]


class Judge(nn.Module):
    """A convolutional classifier with three heads: objects, styles and colours."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.heads = nn.ModuleList(
            nn.Linear(CHANNELS[-1] * 5, count) for count in (len(OBJECTS), len(STYLES), len(COLOURS))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the logits of objects, styles and colours for images ``[n, 3, 64, 64]`` with values from 0 to 1.

        Their shapes are ``[n, objects]``, ``[n, styles]`` and ``[n, colours]``.
        """
        maps = self.features(2 * images - 1)
        pooled = torch.cat([maps.amax((2, 3)), F.adaptive_avg_pool2d(maps, 2).flatten(1)], 1)
        return [head(pooled) for head in self.heads]

    @torch.no_grad()
    def judge(self, images: Tensor) -> Verdict:
        """Name what images ``[n, 3, 64, 64]`` with values from 0 to 1 show. Raises ``ValueError`` if one holds NaN."""
        if not torch.isfinite(images).all():
            raise ValueError("a picture holds NaN or infinite values, so it shows nothing; the model is ruined")
        things, styles, colours = (logits.argmax(-1).tolist() for logits in self(images))
        names = tuple(COLOURS)
        return Verdict([OBJECTS[i] for i in things], [STYLES[i] for i in styles], [names[i] for i in colours])

    @classmethod
    def load(cls) -> Judge:
        judge = cls()
        tensors = load_file(WEIGHTS / "judge.safetensors")
        judge.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return judge.eval().requires_grad_(False)
