"""Other projects' erasing, run from clones of their repositories, unmodified; none of their code is in this one.

Two of them are scripts, which are run with their own options; of the others, the functions that their scripts call are
imported. What their code assumes and this machine or the embedded model lacks (a GPU, eight heads, libraries for
evaluation) is handed to it from outside, and said where it happens.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import runpy
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch import Tensor

from erasure_core import from_diffusers
from erasure_core.conditioning import Conditioning
from erasure_core.diffusers.model import DiffusersModel
from erasure_core.model import DiffusionModel
from erasure_core.sampling.ddim import timesteps
from erasure_core.toy import sample_captions

STEPS = 8  # of drawing a picture; AdaVD has to know them before
MANY = 10  # from so many concepts on, the settings that a repository publishes for many
PACKAGE = "clone"


@dataclass(frozen=True)
class Request:
    """The names to erase at once, all of one ``kind`` (``object`` or ``style``), and those to ``preserve``."""

    names: tuple[str, ...]
    kind: str
    preserve: tuple[str, ...] = ()


Edited = Callable[[], DiffusionModel]
Erase = Callable[[Request], Edited]
Load = Callable[[Path, Any], Erase]
"""From the folder of a clone and a diffusers pipeline, which may be changed, to what erases from that pipeline."""


@dataclass(frozen=True)
class Peer:
    """A repository, the file by which a clone of it is recognised, and its ways of erasing by their names."""

    repository: str
    file: str
    ways: dict[str, Load]


class StandIn(ModuleType):
    """A module that is imported but never used: whatever is taken from it fails when it is called."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*arguments, **named) -> None:
            raise RuntimeError(f"{self.__name__}.{name} is only for evaluation and was not imported")

        return missing


@contextlib.contextmanager
def importing(clone: Path, stand_ins: Sequence[str] = ()) -> Iterator[None]:
    """Import from a clone; afterwards its modules can no longer be confused with those of another clone."""
    package = ModuleType(PACKAGE)
    package.__path__ = [str(clone)]
    modules = {PACKAGE: package, **{name: StandIn(name) for name in stand_ins}}
    before, path, gradients = dict(os.environ), list(sys.path), torch.is_grad_enabled()
    sys.modules.update(modules)
    sys.path.insert(0, str(clone))
    try:
        yield
    finally:
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(before)
        torch.set_grad_enabled(gradients)
        for name, module in list(sys.modules.items()):
            if name in modules or clone in Path(getattr(module, "__file__", None) or "/").parents:
                del sys.modules[name]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        yield


@contextlib.contextmanager
def inside(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_script(path: Path, pipe, options: dict[str, str], files: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """Run an official script on ``pipe`` and return the weights that it saves; ``files`` are what it finds to load."""
    from diffusers import DiffusionPipeline

    line = [str(path), *(f"--{name}={value}" for name, value in options.items() if value)]
    line += ["--device=cpu", "--save_dir=.", "--exp_name=edited"]
    with TemporaryDirectory() as folder, importing(path.parent), inside(folder), quiet():
        for name, content in (files or {}).items():
            torch.save(content, name)
        with (
            patch.object(sys, "argv", line),
            patch.object(DiffusionPipeline, "from_pretrained", lambda *arguments, **named: pipe),
        ):
            runpy.run_path(str(path), run_name="__main__")
        return load_file("edited.safetensors")


def with_weights(pipe, weights: dict[str, Tensor]) -> DiffusionModel:
    """The pipeline's model with new weights of its UNet."""
    new = {f"unet.{name}": weight.detach() for name, weight in weights.items()}
    return from_diffusers(pipe).with_weights(new)


def uce(clone: Path, pipe, expand: bool = False) -> Erase:
    """UCE's script: the last token of each name towards "" or "art", by default without further prompts."""

    def erase(request: Request) -> Edited:
        options = {
            "edit_concepts": "; ".join(request.names), "preserve_concepts": "; ".join(request.preserve),
            "concept_type": "art" if request.kind == "style" else "object", "expand_prompts": "true" if expand else "",
        }  # fmt: skip
        weights = run_script(clone / "trainscripts" / "uce_sd_erase.py", pipe, options)
        return lambda: with_weights(pipe, weights)

    return erase


OCE_SETTINGS = {
    "object": {"erase_scale": 2000.0, "preserve_global_scale": 10.0, "preserve_concept_scale": 0.0},
    "style": {"erase_scale": 500.0, "preserve_global_scale": 10.0, "preserve_concept_scale": 1.0},
    "many": {"erase_scale": 3500.0, "preserve_global_scale": 50.0, "preserve_concept_scale": 5.0},
}
"""Those of the scripts for an object, a style and ten celebrities; the last do not expand prompts."""


def oce(clone: Path, pipe, factor: float = 1.0, captions: int = 512) -> Erase:
    """OCE's script with its own scripts' settings, the scale of erasing times ``factor``.

    It cannot preserve nothing: as in its scripts, what guides is preserved too. Its second moment of text, published
    for captions of COCO, is that of so many ``captions`` of the embedded model.
    """
    moment = second_moment(pipe, [str(caption) for caption in sample_captions(captions, 0)])

    def erase(request: Request) -> Edited:
        guide = "real" if request.kind == "style" else "background"
        group = "many" if len(request.names) >= MANY else request.kind
        settings = OCE_SETTINGS[group]
        scales = {**settings, "erase_scale": factor * settings["erase_scale"], "lamb": 10.0}
        options = {
            "edit_concepts": "; ".join(request.names), "guide_concepts": guide,
            "preserve_concepts": "; ".join((guide, *request.preserve)),
            "concept_type": "art" if request.kind == "style" else "object",
            "expand_prompts": "false" if group == "many" else "true",
            **{name: str(value) for name, value in scales.items()},
        }  # fmt: skip
        weights = run_script(clone / "oce.py", pipe, options, {"Cg.pt": {"C": moment, "count": 0}})
        return lambda: with_weights(pipe, weights)

    return erase


@torch.no_grad()
def second_moment(pipe, prompts: Sequence[str]) -> Tensor:
    """The mean of ``c c^T`` over the tokens of prompts without padding, ``[d, d]``."""
    read = pipe.tokenizer(list(prompts), return_tensors="pt", truncation=True, padding=True)
    rows = pipe.text_encoder(read.input_ids).last_hidden_state[read.attention_mask > 0]
    return rows.T @ rows / len(rows)


SPEED_FEW = Namespace(params="V", aug_num=10, threshold=1e-1, retain_scale=1.0, lamb=0.0, disable_filter=False)
SPEED_MANY = Namespace(params="V", aug_num=10, threshold=1e-4, retain_scale=0.05, lamb=0.0, disable_filter=True)
"""Of ``scripts/eval_few.sh`` and ``scripts/eval_multi.sh``."""


def speed(clone: Path, pipe) -> Erase:
    """SPEED's ``edit_model``, towards "" or "art"; it names a GPU for its k-means, which runs on the CPU here."""
    with importing(clone):
        module = importlib.import_module("train_erase_null")
    on_gpu = module.kmeans
    module.kmeans = lambda **named: on_gpu(**{**named, "device": torch.device("cpu")})  # type: ignore[attr-defined]

    def erase(request: Request) -> Edited:
        anchor = "art" if request.kind == "style" else ""
        settings = SPEED_MANY if len(request.names) >= MANY else SPEED_FEW
        module.seed_everything(0)
        with quiet():
            weights = module.edit_model(
                settings, pipe, list(request.names), [anchor] * len(request.names), list(request.preserve) or [""],
                baseline="SPEED", emb_size=pipe.unet.config.cross_attention_dim, device="cpu",
            )  # fmt: skip
        return lambda: with_weights(pipe, weights)

    return erase


RECE_REGULAR_SCALE = {"object": 1e-1, "style": 1e-3}


def rece(clone: Path, pipe) -> Erase:
    """RECE's three functions as its scripts call them: UCE's edit, the derived contexts, and their edit, once.

    Coefficients are those that its README states. Its libraries for evaluation are not imported.
    """
    with importing(clone, ("execs", "attack_methods", f"{PACKAGE}.execs")), quiet():
        first = importlib.import_module(f"{PACKAGE}.erase_methods.train_uce").edit_model
        derive = importlib.import_module(f"{PACKAGE}.utils.embedding_calculation.close_form_emb").close_form_emb_regzero
        second = importlib.import_module(f"{PACKAGE}.erase_methods.uce").edit_model_adversarial
    original = copy.copy(pipe)
    original.unet = copy.deepcopy(pipe.unet)
    coefficients = {"lamb": 0.1, "erase_scale": 1.0, "preserve_scale": 0.1, "technique": "replace"}

    def erase(request: Request) -> Edited:
        names, target = list(request.names), "art" if request.kind == "style" else " "
        retained = ["", *request.preserve]
        with torch.no_grad(), quiet():
            first(pipe, names, [target] * len(names), retained, **coefficients)
            scale = RECE_REGULAR_SCALE[request.kind]
            derived = [derive(pipe, original, name, regeular_scale=scale)[1][0] for name in names]
            ids = pipe.tokenizer(target, padding="max_length", truncation=True, return_tensors="pt").input_ids
            targets = [pipe.text_encoder(ids)[0][0]] * len(names)
            second(pipe, derived, targets, retained, **coefficients)
        return lambda: from_diffusers(pipe)

    return erase


def adavd(clone: Path, pipe, token_sim: bool = False) -> Erase:
    """AdaVD, which changes no weight: the values of the names are taken out of those of each picture's prompt.

    With ``token_sim``, as in its demonstration, only out of tokens that are like them. Its code is written for eight
    heads. A model with fewer gets each picture and each name several times, which gives the same: it takes the copies
    for further heads, and all its sums are over all heads.
    """
    with importing(clone / "src"):
        module = importlib.import_module("main")
    heads = {block.heads for name, block in pipe.unet.named_modules() if name.endswith("attn2")}
    if len(heads) > 1 or 8 % max(heads):
        raise ValueError(f"AdaVD's code needs as many heads in each layer, 1, 2, 4 or 8; the model has {sorted(heads)}")
    copies = 8 // max(heads)

    def erase(request: Request) -> Edited:
        with torch.no_grad(), quiet():
            tokens = [module.get_token(name, pipe.tokenizer) for name in request.names]
            spread = [
                module.get_spread_embedding(module.get_textencoding(one, pipe.text_encoder), module.get_eot_idx(one))
                for one in tokens
            ]
            targets = torch.cat(spread).repeat_interleave(copies, 0)
            empty = module.get_textencoding(module.get_token("", pipe.tokenizer), pipe.text_encoder)
            config = pipe.unet.config
            unet = module.set_attenprocessor(pipe.unet, atten_type="original", record=True, record_type="values")
            _, records = module.diffusion(
                unet=unet, scheduler=pipe.scheduler, total_timesteps=1, record=True, record_type="values",
                latents=torch.zeros(len(targets), config.in_channels, config.sample_size, config.sample_size),
                text_embeddings=torch.cat([empty.expand(len(targets), -1, -1), targets]),
            )  # fmt: skip
        return lambda: Decomposed(pipe, module, records["values"], copies, token_sim)

    return erase


class Decomposed(DiffusersModel):
    """A model that draws with AdaVD's attention; a batch begins where the timestep does not fall."""

    def __init__(self, pipe, module: ModuleType, records: dict[str, list], copies: int, token_sim: bool):
        super().__init__(pipe, from_diffusers(pipe).family)
        self._settings = {"sigmoid_setting": (100, 0.93, 2), "token_sim": token_sim, "decomp_timestep": 0}
        self._module, self._copies, self._before = module, copies, 0
        by_name = {key.partition(".")[2]: record for key, record in records.items()}
        moments = timesteps(len(self.alphas_cumprod), STEPS)
        self._records = {f"{moment}.{name}": record for moment in moments for name, record in by_name.items()}

    def predict_noise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        if int(timesteps[0]) >= self._before:
            self._begin()
        self._before = int(timesteps[0])
        rows = torch.arange(len(latents)).repeat_interleave(self._copies)
        return super().predict_noise(latents[rows], timesteps[rows], conditioning[rows])[:: self._copies]

    def _begin(self) -> None:
        self._module.ORTHO_DECOMP_STORAGE = {}  # type: ignore[attr-defined]
        records = {"values": dict(self._records)}
        self._module.set_attenprocessor(self.pipe.unet, atten_type="retain", target_records=records, **self._settings)


PEERS = {
    "UCE": Peer(
        "https://github.com/rohitgandikota/unified-concept-editing", "trainscripts/uce_sd_erase.py",
        {"UCE": uce, "UCE, expand_prompts": partial(uce, expand=True)},
    ),
    "SPEED": Peer("https://github.com/Ouxiang-Li/SPEED", "train_erase_null.py", {"SPEED": speed}),
    "RECE": Peer("https://github.com/CharlesGong12/RECE", "erase_methods/train_uce.py", {"official RECE": rece}),
    "OCE": Peer(
        "https://github.com/HansSunY/OCE", "oce.py",
        {"OCE": oce, "OCE, scale / 3": partial(oce, factor=1 / 3), "OCE, scale x 3": partial(oce, factor=3.0)},
    ),
    "AdaVD": Peer(
        "https://github.com/WYuan1001/AdaVD", "src/main.py",
        {"AdaVD": adavd, "AdaVD, token_sim": partial(adavd, token_sim=True)},
    ),
}  # fmt: skip


def clones_in(folder: Path) -> dict[str, Path]:
    """The clones that are there, by their names in ``PEERS``, which their folders have too."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give the one that holds clones called {', '.join(PEERS)}")
    return {name: (folder / name).resolve() for name, peer in PEERS.items() if (folder / name / peer.file).is_file()}


def commit_of(clone: Path) -> str:
    command = ["git", "-C", str(clone), "log", "-1", "--format=%h of %cs"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
