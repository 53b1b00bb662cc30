"""A CLIP of transformers as a recogniser, small and with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from erasure_core.audit.recognisers.clip_folder import load_clip
from erasure_core.diffusers.clip_tokenizer import clip_tokenizer

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "bos_token_id": 49_406, "eos_token_id": 49_407, "pad_token_id": 49_407}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
          "image_size": 32, "patch_size": 8}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip")
    CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)).save_pretrained(path)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, clip_tokenizer()).save_pretrained(path)
    return path


def test_scores_are_those_of_transformers(folder: Path) -> None:
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    prompts = ["a picture of cat", "a picture of a dog on a hill"]
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    given = processor(text=prompts, images=list(images), do_rescale=False, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**given).logits_per_image / model.logit_scale.exp()
    judge = load_clip(folder)
    assert judge.likeness(images, prompts) == pytest.approx(logits.diagonal().tolist(), abs=1e-5)
    assert len(judge.shows(images, ["cat", "in the style of monet"])) == 2


def test_a_folder_without_a_clip(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no CLIP with its processor"):
        load_clip(tmp_path)
