"""Where a checkpoint keeps each weight, by the weight's name in erasures: one file, or the folders of diffusers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from ..erasures.erasure_record import ErasureRecord
from ..erasures.original_names import attention_in_diffusers, original
from ..files.tensor_file import TensorFile
from ..model import CONTEXT, POOLED, POOLED_LAYER, LazyWeights, TextEntry
from ..quoting import excerpt
from .stored_weights import StoredWeight

UNET = "unet"
UNETS = ("model.diffusion_model.", "diffusion_model.", "")
"""How the keys of a denoiser begin in a single file: in a checkpoint, and in the file of a denoiser alone."""
TRANSFORMERS: Mapping[str, tuple[str, ...]] = {
    "text_encoder": ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."),
    "text_encoder_2": (),
}
"""How the keys of text encoders begin that are named as in transformers."""
OPEN_CLIPS: Mapping[str, tuple[str, ...]] = {
    "text_encoder": ("cond_stage_model.model.", "conditioner.embedders.0.model."),
    "text_encoder_2": ("conditioner.embedders.1.model.", "conditioner.embedders.0.model."),
}
"""How the keys of text encoders begin that are named as in OpenCLIP; ComfyUI counts SDXL's refiner's as the first."""
NEST = "text_model."
LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
QUERIES = re.compile(r"self_attn\.([qkv])_proj")
IN_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}  # fmt: skip
OUTSIDE = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}  # fmt: skip
TRANSPOSED = "text_projection"  # in OpenCLIP
DOWNSAMPLER = re.compile(r"input_blocks\.(\d+)\.0\.op\.weight")
CROSS = ("attn2.to_k.weight", "attn2.to_v.weight")


@dataclass(frozen=True)
class Place:
    """A weight's place in a file: a tensor, or a third of its rows where it holds queries, keys and values."""

    file: TensorFile
    key: str
    third: int | None = None
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        shape = self.file.entries[self.key].shape
        if self.third is not None:
            shape = (shape[0] // 3, *shape[1:])
        return shape[::-1] if self.transposed else shape

    def part(self, tensor: Tensor) -> Tensor:
        """Return the weight as a view of the file's tensor."""
        if self.third is not None:
            rows = len(tensor) // 3
            tensor = tensor[self.third * rows : (self.third + 1) * rows]
        return tensor.T if self.transposed else tensor

    def weight(self) -> Tensor:
        """Return the weight in float32 or, where it is stored so, in float64."""
        return self.part(StoredWeight(self.file, self.key).value())


@dataclass(frozen=True)
class Checkpoint:
    """A model on the disk whose weights are found by their names in erasures."""

    path: Path
    parts: Mapping[str, Sequence[TensorFile]]
    """The files of each part of a diffusers folder, or under ``""`` the one file of all parts."""

    @property
    def files(self) -> list[TensorFile]:
        """All files."""
        return [file for files in self.parts.values() for file in files]

    def places(self, name: str) -> list[Place]:
        """Return all places of the weight ``name``: several where a folder has variants of its files.

        Raises ``ValueError`` for a weight that the checkpoint does not have.
        """
        part, _, path = name.partition(".")
        places = list(self._places(part, path))
        if not places:
            raise ValueError(
                f"the erasure changes {excerpt(name, 200)}, which {excerpt(self.path.name)} does not have; it was made "
                "for another kind of model"
            )
        return places

    def weight(self, name: str) -> Tensor:
        """Return the weight ``name``; raise ``ValueError`` where there is none."""
        return self.places(name)[0].weight()

    def text_entries(self, erasure: ErasureRecord) -> dict[str, TextEntry]:
        """Return where text enters the denoiser, as an erasure has it, and in a UNet of Stable Diffusion by its names.

        The weights are read one at a time. There are no entries where neither says so.
        """
        if erasure.maps:
            return {entry: self._entry(one.names, one.columns) for entry, one in erasure.maps.items()}
        names = [name for name in self._unet_names() if name.endswith(CROSS)]
        entries = {CONTEXT: self._entry(names)} if names else {}
        if list(self._places(*POOLED_LAYER.split(".", 1))):
            entries[POOLED] = self._entry([POOLED_LAYER])
        return entries

    def _entry(self, names: Collection[str], columns: tuple[int, int] | None = None) -> TextEntry:
        return TextEntry(LazyWeights({name: partial(self.weight, name) for name in names}), columns)

    def _places(self, part: str, path: str) -> Iterator[Place]:
        for file in self.parts.get(part, ()):
            for key in (path, path.removeprefix(NEST)):
                if key in file.entries:
                    yield Place(file, key)
                    break
        for file in self.parts.get("", ()):
            yield from (Place(file, *where) for where in self._in_single_file(file, part, path))

    def _in_single_file(self, file: TensorFile, part: str, path: str) -> list[tuple[str, int | None, bool]]:
        if part == UNET:
            names = (*self._originals(path), path)
            keys: list[tuple[str, int | None, bool]] = [
                (first + name, None, False) for first in UNETS for name in names
            ]
        else:
            keys = [(first + path, None, False) for first in TRANSFORMERS.get(part, ())]
            key, third = open_clip(path.removeprefix(NEST))
            keys += [(first + key, third, key == TRANSPOSED) for first in OPEN_CLIPS.get(part, ())]
        return [where for where in keys if where[0] in file.entries][:1]

    def _originals(self, path: str) -> tuple[str, ...]:
        module, _, kind = path.rpartition(".")
        name = f"{original(module, self._blocks)}.{kind}"
        if ".upsamplers." in path:
            return name, name.replace(".2.conv", ".1.conv")  # where the level has no attention
        return (name,)

    def _unet_names(self) -> Iterator[str]:
        """Yield the names in diffusers of the weights of attentions."""
        for file in self.parts.get("", ()):
            for key in file.entries:
                first = next(one for one in UNETS if key.startswith(one))
                name = attention_in_diffusers(key.removeprefix(first), self._blocks)
                if name is not None:
                    yield f"{UNET}.{name}"
        yield from dict.fromkeys(f"{UNET}.{key}" for file in self.parts.get(UNET, ()) for key in file.entries)

    @cached_property
    def _blocks(self) -> int:
        """How many numbers the original gives to each level of the UNet: that of its first downsampler."""
        numbers = [int(match[1]) for file in self.files for key in file.entries if (match := DOWNSAMPLER.search(key))]
        return min(numbers, default=3)


def open_clip(path: str) -> tuple[str, int | None]:
    """Return OpenCLIP's key for a weight with a name of transformers, and which third of its rows is the weight."""
    match = LAYER.fullmatch(path)
    if match is None:
        return OUTSIDE.get(path, path), None
    layer, module, kind = match.groups()
    first = f"transformer.resblocks.{layer}"
    if projection := QUERIES.fullmatch(module):
        return f"{first}.attn.in_proj_{kind}", "qkv".index(projection[1])
    return f"{first}.{IN_LAYER.get(module, module)}.{kind}", None
