"""Where text enters the denoisers of ComfyUI's families: the tracer finds what the code says, and edits work there."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))

import comfy.lora
import comfy.sd
import comfy.text_encoders.flux
import comfy.utils
import pytest
import torch
from pack.erasure_core import DiffusionModel, Erasure, LowRank, Origin, TextReader, UnsupportedModelError, rece, uce
from pack.erasure_core.erasures import erasure_file
from pack.erasure_core.erasures.file_keys import older_stems, stems
from pack.erasure_core.methods.rece import ReceSettings
from pack.nodes.comfy_host.model import merged_weights, text_weights, unet_keys, weight_keys
from pack.nodes.comfy_host.patches import apply_erasure
from pack.nodes.comfy_host.traced_model import SIDES, TracedText, runner, texts_of, trace
from pack.nodes.erasures import ErasureApply
from pack.nodes.rece import ErasureRECE
from record import write
from small_denoisers import FAMILIES, POOLED, WIDTH, conditioning, small

LLAMA = Path(comfy.text_encoders.flux.__file__).with_name("llama_tokenizer") / "tokenizer.json"
needs_llama = pytest.mark.skipif(not LLAMA.is_file(), reason="this ComfyUI came without its Llama tokenizer")
UNETS = [name for name, family in FAMILIES.items() if "label_emb" in str(family.entries) or "attn2.to_k" in str(family)]
COMPLETE = [
    name
    for name, family in FAMILIES.items()
    if not family.leaks and all(kind == "text" for _, kind, _ in family.entries.values())
]


@pytest.fixture(autouse=True)
def as_nodes_run():
    with torch.inference_mode():
        yield


def traced(model, family):
    found = trace(model, conditioning(family))
    entries = {entry.name: (entry.text, entry.kind, entry.columns) for entry in found.entries}
    return entries, tuple(sorted(leak.name for leak in found.leaks)), found.unread


@pytest.mark.parametrize("name", FAMILIES)
def test_entries_are_those_of_the_code(name):
    family = FAMILIES[name]
    model = small(family)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    assert traced(model, family) == (family.entries, family.leaks, family.unread)
    after = model.model.state_dict()
    assert before.keys() == after.keys() and not model.patches
    assert all(torch.equal(after[key], weight) for key, weight in before.items())
    assert not any("forward" in module.__dict__ for module in model.model.modules())
    layers = sorted({re.sub(r"(?<=\.)\d+(?=\.|$)", "N", layer) for layer in family.entries})
    normed = any(kind == "rows" for _, kind, _ in family.entries.values())
    write(name, "traced", "", layers=layers, normed=normed, leaks=list(family.leaks))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["SD 1.x", "SDXL", "Flux", "Z-Image", "HunyuanVideo"])
def test_entries_at_other_precisions(name, dtype):
    """As ``--cpu`` runs them: stored narrow, computed in float32; and wide weights computed in bfloat16."""
    family = FAMILIES[name]
    expected = (family.entries, family.leaks, family.unread)
    assert traced(small(family, dtype, torch.float32), family) == expected
    assert traced(small(family, dtype, torch.bfloat16), family) == expected


@pytest.mark.parametrize("name", COMPLETE)
def test_editing_the_entries_is_editing_the_text(name):
    """The real model with ``W A`` in the entries does what it does for texts ``C A^T``."""
    family = FAMILIES[name]
    model, given = small(family), conditioning(family)
    draw = torch.Generator().manual_seed(3)
    texts = texts_of(given)
    maps = {}
    for text, value in texts.items():
        width = value.shape[-1]
        maps[text] = torch.eye(width) + torch.randn(width, width, generator=draw) / width**0.5
    side = SIDES[name.startswith("PixArt")]
    if "stage B" in name:
        side = 16
    run = runner(model, given, side=side)
    before, expected = run(texts), run({text: value @ maps[text].T for text, value in texts.items()})
    for layer, (text, _, (start, stop)) in family.entries.items():
        weight = model.model.diffusion_model.get_submodule(layer).weight.data
        weight[:, start:stop] = weight[:, start:stop] @ maps[text]
    after = run(texts)
    assert after.isfinite().all()
    changed = float((expected - before).abs().max())
    assert changed > 1e-4 * float(expected.abs().max())
    assert float((after - expected).abs().max()) < 1e-3 * changed + 1e-6 * float(expected.abs().max())


@pytest.mark.parametrize("name", UNETS)
def test_the_weights_that_are_edited_by_name_are_those_that_text_enters_through(name):
    model = small(FAMILIES[name])
    keys = unet_keys(model)
    assert {keys[weight] for weight in text_weights(model)} == {
        f"diffusion_model.{layer}.weight" for layer in FAMILIES[name].entries
    }


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_stock_loader_reads_the_file(name, older, tmp_path, monkeypatch, caplog):
    """Every change, and nothing is left; of files with kohya's names for everything, as they once were, too."""
    model = small(FAMILIES[name])
    keys = weight_keys(model)
    changed = {f"diffusion_model.{layer}.weight" for layer in FAMILIES[name].entries}
    names = {ours: key for ours, key in keys.items() if key in changed}
    assert set(names.values()) == changed
    shapes = {ours: model.model_state_dict()[key].shape for ours, key in names.items()}
    deltas = {ours: LowRank(torch.randn(n, 2), torch.randn(2, m)) for ours, (n, m) in shapes.items()}
    if older:
        monkeypatch.setattr(erasure_file, "stems", older_stems)
    path = Erasure(deltas, (Origin("test", (), {}, "0" * 16),)).save(tmp_path / "erasure.safetensors")
    back = Erasure.load(path).deltas
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    stock, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 1.0)
    assert "not loaded" not in caplog.text
    before, after = merged_weights(model, keys), merged_weights(stock, keys)
    for ours in names:
        torch.testing.assert_close(after[ours], before[ours] + deltas[ours].dense())
        assert torch.equal(back[ours].dense(), deltas[ours].dense())
    assert set(stock.patches) == changed


def test_sdxls_names_are_its_checkpoints():
    """Of all weights of the UNet, as ComfyUI tells them."""
    depths = {"transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_output": 3 * [0] + 3 * [2] + 3 * [10]}
    config = {"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth_middle": 10} | depths
    named = {
        f"unet.{ours}": original.rpartition(".")[0].replace(".", "_")
        for ours, original in comfy.utils.unet_to_diffusers(config).items()
        if ours.endswith((".weight", ".bias")) and not ours.startswith(("class_embedding.", "up_blocks.2.upsamplers."))
    }
    assert len(named) > 1600 and stems(named) == {ours: f"lora_unet_{original}" for ours, original in named.items()}


def test_a_model_that_ignores_text_is_refused(monkeypatch):
    model = small(FAMILIES["Wan 2.1"])
    monkeypatch.setattr(type(model.model.diffusion_model), "forward", lambda self, x, *_, **__: x)
    with pytest.raises(
        UnsupportedModelError, match=r"MODEL is of the kind WAN21, where no linear layer reads the text"
    ):
        TracedText(model, clip("pixart_t5", "PixArtTokenizer", None))


class Encoder(torch.nn.Module):
    """Stands for a text encoder: a row for each token, which remembers those before it."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def encode_token_weights(self, windows):
        rows = []
        for window in windows:
            seeds = [torch.Generator().manual_seed(int(token[0])) for token in window]
            heard = torch.stack([torch.randn(self.width, generator=seed) for seed in seeds])
            rows.append(heard + heard.cumsum(0) / 4)
        rows = torch.cat(rows)[None]
        pooled = rows.mean(1)
        return rows, pooled[:, :POOLED], {"attention_mask": torch.ones(rows.shape[:2], dtype=torch.long)}


def clip(module, tokenizer, stage, **encoders):
    """A CLIP of ComfyUI's own tokenizer and assembly of rows, around encoders that are ours."""
    code = importlib.import_module(f"comfy.text_encoders.{module}")
    if stage is None:
        stage = SimpleNamespace(t5xxl=Encoder(WIDTH))
        stage.encode_token_weights = lambda tokens: stage.t5xxl.encode_token_weights(tokens["t5xxl"])[:2]
    else:
        kind = getattr(code, stage)
        made = kind.__new__(kind)
        torch.nn.Module.__init__(made)
        stage = made
        for name, value in encoders.items():
            setattr(stage, name, value)
    tokenize = getattr(code, tokenizer)().tokenize_with_weights

    def encode(tokens):
        context, pooled, *extra = stage.encode_token_weights(tokens)
        return [[context, {"pooled_output": pooled} | (extra[0] if extra else {})]]

    parts = {"cond_stage_model": stage, "patcher": SimpleNamespace(patches={})}
    made = SimpleNamespace(**parts, tokenize=tokenize, encode_from_tokens_scheduled=encode)
    made.clone = lambda: made
    return made


def flux():
    encoders = {"clip_l": short(Encoder(POOLED)), "t5xxl": short(Encoder(WIDTH))}
    return small(FAMILIES["Flux"]), clip("flux", "FluxTokenizer", "FluxClipModel", **encoders)


def short(encoder):
    """CLIP and T5 give no mask here."""
    whole = encoder.encode_token_weights
    encoder.encode_token_weights = lambda windows: whole(windows)[:2]
    return encoder


def sd3(t5=True):
    family = FAMILIES["SD 3"]
    embedder = {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}}
    family = replace(family, unet=family.unet | {"context_embedder_config": embedder, "adm_in_channels": 2 * POOLED})
    encoders = {
        "clip_l": short(Encoder(768)), "clip_g": short(Encoder(1280)), "t5xxl": short(Encoder(4096)) if t5 else None,
        "t5_attention_mask": False,
    }  # fmt: skip
    return small(family), clip("sd3_clip", "SD3Tokenizer", "SD3ClipModel", **encoders)


def qwen():
    encoders = {"clip_name": "qwen25_7b", "clip": "qwen25_7b", "qwen25_7b": Encoder(WIDTH)}
    return small(FAMILIES["Qwen-Image"]), clip("qwen_image", "QwenImageTokenizer", "QwenImageTEModel", **encoders)


def z_image():
    encoders = {"clip_name": "qwen3_4b", "clip": "qwen3_4b", "qwen3_4b": Encoder(WIDTH)}
    return small(FAMILIES["Z-Image"]), clip("z_image", "ZImageTokenizer", "ZImageTEModel", **encoders)


def hunyuan_video():
    encoders = {"clip_l": short(Encoder(POOLED)), "llama": Encoder(WIDTH)}
    return small(FAMILIES["HunyuanVideo"]), clip(
        "hunyuan_video", "HunyuanVideoTokenizer", "HunyuanVideoClipModel", **encoders
    )


def chroma():
    return small(FAMILIES["Chroma"]), clip("pixart_t5", "PixArtTokenizer", None)


def hidream():
    encoders = {
        "clip_l": short(Encoder(POOLED)), "clip_g": None, "t5xxl": Encoder(WIDTH), "llama": Layers(16),
    }  # fmt: skip
    family = FAMILIES["HiDream"]
    family = replace(family, unet=family.unet | {"text_emb_dim": POOLED + 1280})
    return small(family), clip("hidream", "HiDreamTokenizer", "HiDreamTEModel", **encoders)


class Layers(Encoder):
    """The rows of an embedding and of three layers."""

    def encode_token_weights(self, windows):
        rows, pooled, extra = super().encode_token_weights(windows)
        return torch.stack([rows * (layer + 1) for layer in range(4)], 1), pooled, extra


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (flux, {"context": 1, "pooled": 1}),
        (sd3, {"context": 2, "pooled": 1}),
        (lambda: sd3(False), {"context": 1, "pooled": 1}),
        (qwen, {"context": 1}),
        (z_image, {"context": 1}),
        (chroma, {"context": 1}),
        pytest.param(hunyuan_video, {"context": 1, "pooled": 1}, marks=needs_llama),
        pytest.param(hidream, {"context": 1, "pooled": 1, "conditioning_llama3": 2}, marks=needs_llama),
    ],
)
def test_rows_end_where_the_prompt_ends(family, expected):
    """The row of the end is the last word's: more words change all behind it, and none up to it."""
    seen = TracedText(*family())
    assert isinstance(seen, TextReader) and not isinstance(seen, DiffusionModel)
    entries = seen.text_entries()
    assert set(entries) == set(expected)
    names = ("a cat", "a cat on the moon", "a dog", "(a) cat")
    shorter, longer, other, bracketed = seen.text_rows(names)
    assert {name: len(parts) for name, parts in shorter.items()} == expected
    for name, entry in entries.items():
        for weight in entry.weights.values():
            assert entry.part(weight).shape[1] == shorter[name][0].rows.shape[1]
        for one, two, three in zip(shorter[name], longer[name], other[name], strict=True):
            if name == "pooled":
                assert one.rows.shape[0] == 1 and one.last_content == 0
                continue
            end = one.last_content
            assert 0 < end < two.last_content and end == three.last_content
            torch.testing.assert_close(one.rows[: end + 1], two.rows[: end + 1])
            assert not torch.equal(one.rows[end], three.rows[end])
            assert not any(map(torch.equal, one.rows[end + 1 :], two.rows[end + 1 :]))
    assert all(parts[0].last_content >= shorter[name][0].last_content for name, parts in bracketed.items())


def test_names_are_told_apart_as_the_encoders_that_are_there_do():
    """T5 knows capitals, CLIP does not; so with T5 both may be erased, and what only one is said of is told."""
    with_t5, without = (TracedText(*sd3(t5)) for t5 in (True, False))
    for seen in (with_t5, without):
        assert seen.reads("van  gogh") == seen.reads("van gogh ") != seen.reads("van gogh.")
        assert seen.reads("(cat)") != seen.reads("cat")
    assert with_t5.reads("Van Gogh") != with_t5.reads("van gogh")
    assert without.reads("Van Gogh") == without.reads("van gogh")
    assert len(rece(with_t5, "Van Gogh\nvan gogh", ReceSettings(loops=0, ridge=1e-3)).concepts) == 2
    with pytest.raises(ValueError, match="'Van Gogh' and 'van gogh' are the same to this text encoder"):
        rece(without, "Van Gogh\nvan gogh", ReceSettings(loops=0))


def test_rows_of_a_normalised_text_are_normalised():
    seen = TracedText(*qwen())
    rows = seen.text_rows(["a cat"])[0]["context"][0].rows
    _, (given, *_) = seen._encode("a cat")
    norm = seen.model.model.diffusion_model.txt_norm
    torch.testing.assert_close(rows, norm(given[0])[0])


def test_a_prompt_that_is_too_long_for_clip():
    with pytest.raises(ValueError, match=r"'cat cat .*' is 76 tokens long, the text encoder takes 75; shorten it"):
        TracedText(*sd3()).text_rows(["cat " * 76])


@pytest.mark.parametrize(
    "family",
    [
        flux,
        sd3,
        qwen,
        z_image,
        pytest.param(hunyuan_video, marks=needs_llama),
        pytest.param(hidream, marks=needs_llama),
    ],
)
def test_what_the_layers_give_for_the_concept_becomes_what_they_gave_for_the_target(family):
    seen = TracedText(*family())
    erasure = rece(seen, "cat -> dog", ReceSettings(loops=0, ridge=1e-3), preserve=["", "a house"])
    concept, target, far = seen.text_rows(["cat", "dog", "a house"])
    for name, entry in seen.text_entries().items():
        end = concept[name][0].last_content
        one, two = (rows[name][0].rows[end] for rows in (concept, target))
        kept = far[name][0].rows
        for key, weight in entry.weights.items():
            edited = entry.part(weight + erasure.deltas[key].dense())
            weight = entry.part(weight)
            before, after = (float((w @ one - weight @ two).norm()) for w in (weight, edited))
            assert after < 0.1 * before, key
            assert float((kept @ (edited - weight).T).norm()) < 0.1 * float((kept @ weight.T).norm())


@pytest.mark.parametrize("family", [flux, sd3, qwen, z_image])
def test_from_the_node_to_a_file_and_back(family, tmp_path, caplog):
    """The stock LoRA loader and Apply Erasure do with the file what the node did."""
    model, text = family()
    settings = vars(ReceSettings(loops=1, regularization=1e-1))
    given = {"preserve": "a house", "preserve_common": False, "preset": "custom", "strength": 1.0}
    edited, _, erasure, statistics = ErasureRECE.execute(model, text, "cat -> dog", **given, **settings).result
    assert statistics.concepts == erasure.concepts
    back = Erasure.load(erasure.save(tmp_path / "no-cat.safetensors"))
    tensors = comfy.utils.load_torch_file(str(tmp_path / "no-cat.safetensors"), safe_load=True)
    stock, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 1.0)
    applied, _ = ErasureApply.execute(model, back, 1.0, 1.0, text).result
    assert "not loaded" not in caplog.text and "formed anew" not in caplog.text
    keys = {name: weight_keys(model)[name] for name in erasure.deltas}
    own, direct, *others = (merged_weights(one, keys) for one in (model, edited, stock, applied))
    for name in keys:
        assert not torch.equal(own[name], direct[name])
        assert all(torch.equal(direct[name], other[name]) for other in others)


def test_an_erasure_goes_to_another_checkpoint_of_its_family(caplog):
    (model, text), (other, _) = flux(), flux()
    other.model.diffusion_model.txt_in.weight.data.mul_(2)
    erasure = uce(TracedText(model, text), "cat -> dog")
    carried, _ = ErasureApply.execute(other, erasure, 1.0, 1.0, text).result
    assert "formed anew" in caplog.text
    computed, _ = apply_erasure(other, text, uce(TracedText(other, text), "cat -> dog"))
    keys = {name: weight_keys(model)[name] for name in erasure.deltas}
    one, two = (merged_weights(patched, keys) for patched in (carried, computed))
    for name in keys:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


def test_an_erasure_of_another_family_is_refused():
    erasure = uce(TracedText(*flux()), "cat -> dog")
    model, text = qwen()
    with pytest.raises(ValueError, match="is for text read as context .*, pooled .*, the model reads it as"):
        ErasureApply.execute(model, erasure, 1.0, 1.0, text)
