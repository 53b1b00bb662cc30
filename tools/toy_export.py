"""Last stage: the parts in half precision, as the package ships them."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from toy_data import pictures

from erasure_core.toy.captions import COLOURS, OBJECTS, STYLES
from erasure_core.toy.config import WEIGHTS
from erasure_core.toy.renders import captions, save_renders


def export(encoder, token_ids: torch.Tensor, unet, vae, judge) -> None:
    """Write the four files; ``token_ids`` are the rows of CLIP's table that ``encoder`` knows, in order."""
    text = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    text = {f"text_model.{name}": tensor for name, tensor in text.items() if not name.endswith("position_ids")}
    rows = text.pop("text_model.embeddings.token_embedding.weight")
    text |= {"token_rows": rows}
    _write("text_encoder", text, token_ids=token_ids.int())
    for name, module in (("unet", unet), ("vae", vae), ("judge", judge)):
        _write(name, module.state_dict())


def renders(drawings: torch.Tensor) -> None:
    """The sheet of real renders, each placed anew."""
    wanted = captions()
    places = [(OBJECTS.index(caption.object), STYLES.index(caption.style)) for caption in wanted]
    chosen = torch.stack([drawings[place].float() for place in places])
    colours = torch.tensor([tuple(COLOURS).index(caption.colour) for caption in wanted])
    save_renders(pictures(chosen, colours, torch.Generator().manual_seed(30_000)))


def log(path: Path) -> None:
    shutil.copyfile(path, WEIGHTS.parent / "training-log.jsonl")


def _write(part: str, tensors: dict[str, torch.Tensor], **whole: torch.Tensor) -> None:
    WEIGHTS.mkdir(exist_ok=True)
    short = {name: shortened(tensor).contiguous() for name, tensor in tensors.items()}
    save_file({**short, **whole}, WEIGHTS / f"{part}.safetensors")


def shortened(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision, but for the few small tensors of the closed-form encoder that it would blunt."""
    half = tensor.half()
    blunted = tensor.ndim == 1 and float((half.float() - tensor).abs().max()) > 1e-3
    return tensor if blunted else half
