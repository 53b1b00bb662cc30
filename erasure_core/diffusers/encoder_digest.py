"""What identifies the text encoders of a pipeline: all that decides what they make of tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import torch

from ..families.family import Family
from ..model import UnsupportedModelError
from .unsupported import check_weights
from .weight_slots import device_of, find, weights_in
from .weights import Parts

FORMAT = 1
"""To be raised when rows of the same tokens are put together in another way."""


def encoder_digest(parts: Parts, family: Family, padding: Sequence[int], tokens: int) -> str:
    """Return the SHA-256, in hexadecimal digits, of the text encoders of a pipeline.

    ``parts`` are the pipeline's modules, which have the text encoders of ``family``; ``padding`` is the token that
    fills the window of each, and ``tokens`` the length of the window. All numbers of all weights are read. Versions of
    PyTorch and transformers and the kind of device are part of it. Raises ``UnsupportedModelError`` for LoRAs that are
    not fused, for quantised weights, and for weights that others stand in for.
    """
    import transformers

    settings: list[Any] = [FORMAT, torch.__version__, transformers.__version__, family.pooled, list(padding), tokens]
    digest = sha256()
    for encoder in family.encoders:
        module = parts.module(encoder.part)
        if any(hasattr(one, "lora_A") for one in module.modules()) or parts.has_stand_ins(encoder.part):
            raise UnsupportedModelError(
                f"the {encoder.part} has LoRAs or other changes on it that are not part of its weights, so what it "
                "reads cannot be kept; call pipe.fuse_lora() and then pipe.unload_lora_weights()"
            )
        check_weights(encoder.part, module)
        config: Any = module.config
        public = {name: value for name, value in config.to_dict().items() if not name.startswith("_")}
        kind, device = type(module).__qualname__, device_of(module).type
        settings += [encoder.part, encoder.layer, encoder.final_norm, kind, device, module.training, public]
        for path in sorted(weights_in(module)):
            weight = find(module, path).value.detach()
            digest.update(f"{encoder.part}.{path} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()
