"""Last stage: the parts in half precision, as the package ships them."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from erasure_core.toy.config import WEIGHTS


def export(encoder, token_ids: torch.Tensor, unet, vae, judge) -> None:
    """Write the four files; ``token_ids`` are the rows of CLIP's table that ``encoder`` knows, in order."""
    text = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    text = {f"text_model.{name}": tensor for name, tensor in text.items() if not name.endswith("position_ids")}
    rows = text.pop("text_model.embeddings.token_embedding.weight")
    text |= {"token_rows": rows}
    _write("text_encoder", text, token_ids=token_ids.int())
    for name, module in (("unet", unet), ("vae", vae), ("judge", judge)):
        _write(name, module.state_dict())


def _write(part: str, tensors: dict[str, torch.Tensor], **whole: torch.Tensor) -> None:
    WEIGHTS.mkdir(exist_ok=True)
    half = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file({**half, **whole}, WEIGHTS / f"{part}.safetensors")
