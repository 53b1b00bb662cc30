"""A family is one place: what ``Family`` says of a made-up one decides how it is loaded, read, named and listed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from erasure_core import Concept, Erasure, LowRank, Origin, UnsupportedModelError, from_diffusers
from erasure_core.diffusers.detection import CROSS, FIRST_CONV, configs, family_of_checkpoint, index
from erasure_core.diffusers.folder import read_folder
from erasure_core.erasures.file_keys import stem, stems
from erasure_core.erasures.programs import readers_of
from erasure_core.families.family import Family, LoraKeys, TextEncoder
from erasure_core.families.unets import FAMILIES, SD_1, TEXT_L, titles
from erasure_core.model import CONTEXT, POOLED, POOLED_LAYER

WIDTH, HIDDEN, POOLED_WIDTH, TOKENS = 512, 6, 5, 8
LAYER = "up_blocks.0.attentions.7.transformer_blocks.0.attn2.to_k"
FEW = Family(
    title="Few Diffusion",
    pipeline="FewPipeline",
    pipelines={"FewPipeline": "FewPipeline", "FewInpaintPipeline": "FewPipeline"},
    unet={**SD_1.unet, "cross_attention_dim": WIDTH, "layers_per_block": 7},
    encoders=(
        TextEncoder(
            "text_encoder_3", TEXT_L, "few", ("FewTextModel",), layer=-3, padding="!", lora_prefix="lora_te3_"
        ),
    ),
    vae=SD_1.vae,
    text_keys="few_encoder.",
    pooled="text_encoder_3",
    schedule=SD_1.schedule,
    prediction_type="v_prediction",
    options={"few": True},
    index={"few": [None, None]},
    lora=LoraKeys(present=("up_blocks.0.attentions.7.",), original=True),
    variants={"inpainting": "inpainting"},
)  # fmt: skip


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "few", FEW)


class Settings(dict):
    """A configuration of diffusers: its settings are attributes too."""

    __getattr__ = dict.__getitem__


class UNet2DConditionModel(nn.Module):
    """Layers by the names of diffusers, as many as a closed form edits."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Settings(in_channels=4, cross_attention_dim=WIDTH)
        self.attn2 = nn.ModuleDict({"to_k": nn.Linear(WIDTH, 3)})
        self.add_embedding = nn.ModuleDict({"linear_1": nn.Linear(POOLED_WIDTH + 2, 3)})


class Encoder(nn.Module):
    """Hidden state k of a token is its id plus 100 k; the projected vector is the sum of the ids."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Settings(
            eos_token_id=2, hidden_size=HIDDEN, projection_dim=POOLED_WIDTH, max_position_embeddings=TOKENS
        )  # fmt: skip
        self.final = nn.Linear(1, 1)

    def forward(self, ids: torch.Tensor, output_hidden_states: bool) -> SimpleNamespace:
        states = [(ids[..., None] + 100.0 * place).expand(-1, -1, HIDDEN) for place in range(5)]
        return SimpleNamespace(hidden_states=states, text_embeds=ids.sum(1, keepdim=True).expand(-1, POOLED_WIDTH))


class Tokenizer:
    """Words are their lengths, between 1 and 2; the padding is 9."""

    model_max_length, eos_token_id, pad_token_id = 77, 2, 9
    added_tokens_encoder, all_special_tokens = {}, []

    def __call__(self, text: str, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": [1, *map(len, text.split()), 2]}


class FewPipeline(SimpleNamespace):
    """A pipeline with the parts that an erasure reads."""


def pipeline() -> FewPipeline:
    scheduler = SimpleNamespace(alphas_cumprod=torch.ones(3), config=SimpleNamespace(prediction_type="epsilon"))
    return FewPipeline(
        unet=UNet2DConditionModel(), text_encoder_3=Encoder(), tokenizer_3=Tokenizer(), scheduler=scheduler,
        vae=SimpleNamespace(config=SimpleNamespace(latent_channels=4)), text_encoder=None,
    )  # fmt: skip


def shapes(text: str = "few_encoder.x") -> dict[str, list[int]]:
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    assert CROSS.fullmatch(key)
    return {key: [320, WIDTH], FIRST_CONV: [320, 4, 3, 3], text: [1]}


def test_without_an_entry_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="few is not a Stable Diffusion checkpoint"):
        family_of_checkpoint("few", shapes())
    with pytest.raises(UnsupportedModelError, match="FewPipeline has no text_encoder, tokenizer; a pipeline of"):
        from_diffusers(pipeline())
    with pytest.raises(UnsupportedModelError, match="is a FewInpaintPipeline; a pipeline of"):
        read_folder(folder(tmp_path))
    with pytest.raises(ValueError, match="no name for the weight 'text_encoder_3"):
        stem("text_encoder_3.a.weight")


@pytest.mark.usefixtures("known")
def test_its_checkpoint_is_told_by_width_and_text_keys() -> None:
    assert family_of_checkpoint("few", shapes()) is FEW
    with pytest.raises(UnsupportedModelError, match="few has no text encoder"):
        family_of_checkpoint("few", shapes("cond_stage_model.x"))
    parts = configs(FEW, shapes())
    assert list(parts) == ["unet", "text_encoder_3", "vae", "scheduler"]
    assert parts["unet"]["cross_attention_dim"] == WIDTH and parts["scheduler"]["prediction_type"] == "v_prediction"
    written = index(FEW)
    assert written["_class_name"] == "FewPipeline" and written["few"] == [None, None]
    assert written["text_encoder_3"] == ["transformers", "FewTextModel"]
    assert written["tokenizer_3"] == ["transformers", "CLIPTokenizer"]


def folder(path: Path, encoder: str = "FewTextModel") -> Path:
    components = {"unet": ["diffusers", "UNet2DConditionModel"], "text_encoder_3": ["transformers", encoder]}
    (path / "model_index.json").write_text(json.dumps({"_class_name": "FewInpaintPipeline", **components}))
    for part in components:
        (path / part).mkdir(exist_ok=True)
        (path / part / "config.json").write_text("{}")
        (path / part / "model.safetensors").touch()
    return path


@pytest.mark.usefixtures("known")
def test_its_folder_is_loaded_as_it_says(tmp_path: Path) -> None:
    content = read_folder(folder(tmp_path))
    assert (content.pipeline, content.options) == ("FewPipeline", {"few": True})
    assert list(content.weights) == ["unet", "text_encoder_3"]
    with pytest.raises(UnsupportedModelError, match="'text_encoder_3' is a CLIPTextModel, a FewTextModel is needed"):
        read_folder(folder(tmp_path, "CLIPTextModel"))


@pytest.mark.usefixtures("known")
def test_its_text_is_read_as_it_says() -> None:
    model = from_diffusers(pipeline())
    assert model.family is FEW and (model.context_dim, model.tokens) == (HIDDEN, TOKENS)
    text = model.encode_prompts(["a cat"])
    ids = torch.tensor([1, 1, 3, 2, 9, 9, 9, 9])
    assert torch.equal(text.context[0, :, 0], ids + 200.0) and torch.equal(text.pooled[0], ids.sum().expand(5))
    entries = model.text_entries()
    assert list(entries[CONTEXT].weights) == ["unet.attn2.to_k.weight"]
    assert list(entries[POOLED].weights) == [POOLED_LAYER] and entries[POOLED].columns == (0, POOLED_WIDTH)


def test_a_width_decides_between_families_with_the_same_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another width is read as the first of them."""
    (encoder,) = FEW.encoders
    narrow = replace(FEW, encoders=(replace(encoder, layer=-1),), unet={**FEW.unet, "cross_attention_dim": 3})
    for name, family in {"few": FEW, "narrow": narrow}.items():
        monkeypatch.setitem(FAMILIES, name, family)
    for width, expected, state in ((WIDTH, FEW, 200), (3, narrow, 400), (7, FEW, 200)):
        pipe = pipeline()
        pipe.unet.config["cross_attention_dim"] = width
        model = from_diffusers(pipe)
        assert model.family is expected and model.encode_prompts([""]).context[0, 0, 0] == 1 + state


@pytest.mark.usefixtures("known")
def test_its_lora_files_have_the_keys_that_it_says() -> None:
    names = [f"unet.{LAYER}.weight", "text_encoder_3.a.b.weight"]
    assert list(stems(names).values()) == [
        "lora_unet_output_blocks_7_1_transformer_blocks_0_attn2_to_k", "lora_te3_a_b"
    ]  # fmt: skip
    change = LowRank(torch.ones(2, 1), torch.ones(1, 2))
    erasure = Erasure(dict.fromkeys(names, change), (Origin("test", (Concept("cat"),), {}, "0" * 16),))
    assert readers_of(erasure).endswith("and diffusers read it; kohya's sd-scripts do not")
    deep = LAYER.replace("up_blocks.0", "up_blocks.1")
    assert stems([f"unet.{deep}.weight"])[f"unet.{deep}.weight"] == stem(f"unet.{deep}.weight")


@pytest.mark.usefixtures("known")
def test_tables_name_it() -> None:
    assert list(titles().items())[-2:] == [
        ("few", "Few Diffusion"), ("few_inpainting", "Few Diffusion, inpainting")
    ]  # fmt: skip
