"""Modules of the pack on a stand-in for ComfyUI (``tests/stand_in``), and small models, CLIPs and erasures for them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PACK = "pack_under_test"
UNET, TEXT = "diffusion_model.", "clip_l.transformer."
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn2."
OWN = "input_blocks.1.1.transformer_blocks.0.attn2."
KEY, VALUE = f"unet.{BLOCK}to_k.weight", f"unet.{BLOCK}to_v.weight"
FC1 = "text_encoder.text_model.encoder.layers.0.mlp.fc1"


class Pack:
    """Modules of the pack as ComfyUI imports them, below a package of their own, and those of the stand-in."""

    def __init__(self, root: Path):
        self.root = root

    def nodes(self, name: str) -> ModuleType:
        return importlib.import_module(f"{PACK}.nodes.{name}")

    def core(self, name: str) -> ModuleType:
        return importlib.import_module(f"{PACK}.erasure_core.{name}")

    def comfy_api(self) -> ModuleType:
        return importlib.import_module("comfy_api.latest")

    def comfy(self, name: str) -> ModuleType:
        return importlib.import_module(f"comfy.{name}")


@contextmanager
def stand_in(root: Path = ROOT) -> Iterator[Pack]:
    """With a stand-in for ComfyUI in ``sys.modules``, which is as it was afterwards; the pack is that of ``root``."""
    before, path = dict(sys.modules), list(sys.path)
    sys.path.insert(0, str(ROOT / "tests" / "stand_in"))
    for name in (PACK, f"{PACK}.nodes"):  # without their __init__, which imports every node
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    try:
        yield Pack(root)
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if name not in before]:
            if name.partition(".")[0] in (PACK, "comfy", "comfy_api", "folder_paths"):
                del sys.modules[name]


def tree(**shapes: tuple[int, int]) -> nn.Module:
    """Linear layers below dotted names ``a__b`` with weights of given shapes, one for each."""
    root = nn.Module()
    for seed, (path, (out, width)) in enumerate(shapes.items()):
        place, *rest = root, *path.split("__")
        for part in rest[:-1]:
            if part not in dict(place.named_children()):
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        layer = nn.Linear(width, out)
        nn.init.uniform_(layer.weight, -1, 1, generator=torch.Generator().manual_seed(seed))
        place.add_module(rest[-1], layer)
    return root


def dotted(path: str) -> str:
    return path.replace(".", "__")


def a_model(pack: Pack, kind: str = "BaseModel", **config):
    """A MODEL with one pair of keys and values, 6 and 8 by 4, and a layer that reads no text."""
    layers = {dotted(f"{OWN}to_k"): (6, 4), dotted(f"{OWN}to_v"): (8, 4), "out": (4, 4)}
    names = {f"{BLOCK}{one}.weight": f"{OWN}{one}.weight" for one in ("to_k", "to_v")}
    names |= {"conv_out.weight": "out.weight", "not_there.weight": "not_there.weight"}
    base = getattr(pack.comfy("model_base"), kind)
    return pack.comfy("model_patcher").ModelPatcher(base(tree(**layers), names, **config))


def a_clip(pack: Pack, **settings):
    stage = tree(**{dotted(f"{TEXT}text_model.encoder.layers.0.mlp.fc1"): (4, 4)})
    return pack.comfy("sd").CLIP(stage, **settings)


def erasure_of(pack: Pack, concept: str = "cat", **deltas):
    """Of changes of the model's keys, its values or the text encoder, by ``key``, ``value`` and ``text``."""
    names = {"key": KEY, "value": VALUE, "text": f"{FC1}.weight", "bias": f"{FC1}.bias"}
    core = pack.core("erasures.erasure")
    origin = pack.core("erasures.erasure_record").Origin(
        "test", (pack.core("concepts.parse").Concept(concept),), {}, "0" * 16
    )
    return core.Erasure({names.get(name, name): delta for name, delta in deltas.items()}, (origin,))


def dense(pack: Pack, *shape: int):
    return pack.core("erasures.low_rank").Dense(torch.randn(*shape, generator=torch.Generator().manual_seed(7)))


def low_rank(pack: Pack, out: int, width: int, rank: int = 2):
    draws = torch.Generator().manual_seed(8)
    up, down = torch.randn(out, rank, generator=draws), torch.randn(rank, width, generator=draws)
    return pack.core("erasures.low_rank").LowRank(up, down)


def merged(pack: Pack, patcher, key: str, **how) -> torch.Tensor:
    return pack.nodes("comfy_host.weights").stored(patcher, key, **how).merged(torch.device("cpu"))


def bits(model) -> dict[str, torch.Tensor]:
    return {key: weight.clone() for key, weight in model.model.state_dict().items()}
