"""What a family of text-to-image models is: all that differs from one to the other, as data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Config = Mapping[str, Any]
"""Settings of one part of a pipeline, as diffusers or transformers names them."""
END_OF_TEXT = "<|endoftext|>"


def tokenizer_of(part: str) -> str:
    """Return what a pipeline calls the tokenizer of its text encoder: ``tokenizer_2`` for ``text_encoder_2``."""
    return part.replace("text_encoder", "tokenizer")


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder of a pipeline, and what the UNet reads of it."""

    part: str
    """Its name in the pipeline: ``text_encoder``, or ``text_encoder_2``."""
    config: Config
    """The settings of transformers' ``CLIPTextConfig``."""
    comfyui: str
    """ComfyUI's name for it, by which its tokens are given to a CLIP."""
    classes: tuple[str, ...] = ("CLIPTextModel", "CLIPTextModelWithProjection")
    """Its classes in transformers; of a single file it is loaded as the first."""
    layer: int | None = None
    """The index of the hidden state that is the UNet's context, such as -2 for that before the last layer.

    ``None`` is the encoder's output: the last hidden state after the final norm.
    """
    final_norm: bool = False
    """Whether the encoder's final norm is applied to the hidden state of ``layer``."""
    padding: str = END_OF_TEXT
    """The token that fills the window behind end-of-text, where the tokenizer comes with this package."""
    lora_prefix: str = "lora_te_"
    """How the keys of its weights begin in kohya-ss's LoRA files: the same wherever a pipeline has this part."""

    @property
    def tokenizer(self) -> str:
        """The name of its tokenizer in the pipeline."""
        return tokenizer_of(self.part)

    def skipping(self, layers: int) -> TextEncoder:
        """Return the same encoder whose context is the hidden state of so many ``layers`` before, at least 0."""
        if not layers:
            return self
        if self.layer is None:
            return replace(self, layer=-1 - layers, final_norm=True)
        return replace(self, layer=self.layer - layers)


@dataclass(frozen=True)
class LoraKeys:
    """How LoRA files name the layers of a UNet.

    A file has a part of the layers only, so the family is known by parts of their names, as diffusers has them.
    """

    present: tuple[str, ...] = ()
    """Parts of names, each of which is in the name of some layer of the family."""
    absent: tuple[str, ...] = ()
    """Parts of names that no layer of the family has."""
    original: bool = False
    """Whether layers are named as in the original checkpoint, and not as in diffusers."""
    sd_scripts: bool = False
    """Whether kohya's sd-scripts read the files; ComfyUI, A1111, Forge and diffusers read those of all families."""

    def fit(self, layers: Collection[str]) -> bool:
        """Return whether ``layers``, by their names in diffusers, can be the family's."""
        names = "\n".join(layers)
        return all(part in names for part in self.present) and not any(part in names for part in self.absent)


@dataclass(frozen=True)
class Family:
    """A family of diffusers pipelines with a UNet."""

    title: str
    """Its name in tables."""
    pipeline: str
    """The class of diffusers that its single-file checkpoints are loaded as."""
    pipelines: Mapping[str, str]
    """The classes that a diffusers folder may name, and the class that each is loaded as."""
    unet: Config
    """The settings of ``UNet2DConditionModel``; ``cross_attention_dim`` tells families apart."""
    encoders: tuple[TextEncoder, ...]
    """Its text encoders; the contexts of several lie side by side in this order."""
    vae: Config
    """The settings of ``AutoencoderKL``."""
    text_keys: str
    """How the names of the text encoders' weights begin in its single-file checkpoints."""
    pooled: str = ""
    """The text encoder whose projected vector of the whole prompt the UNet reads too, by its part; "" for none."""
    schedule: Config = field(default_factory=dict)
    """The settings of ``DDIMScheduler``."""
    prediction_type: str = "epsilon"
    """What the UNet predicts, unless a checkpoint says otherwise: ``epsilon`` or ``v_prediction``."""
    options: Config = field(default_factory=dict)
    """What the pipelines' classes are called with beside their parts."""
    index: Config = field(default_factory=dict)
    """What ``model_index.json`` says beside its pipeline and the parts above."""
    lora: LoraKeys = field(default_factory=LoraKeys)
    """How LoRA files name its layers."""
    architecture: str = ""
    """Its name in the metadata ``modelspec.architecture``; "" where a LoRA does not tell which of several it is of."""
    base_model: str = ""
    """Its name in the metadata ``ss_base_model_version`` of kohya-ss's scripts; "" where they have none."""
    variants: Mapping[str, str] = field(default_factory=dict)
    """Models of the family whose UNet reads more channels, and how tables call them."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its text encoders in the pipeline."""
        return tuple(encoder.part for encoder in self.encoders)
