"""What is in the workflows that ship, which ``make_workflows`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

BLUE, GREEN, PURPLE = "#3f789e", "#8A8", "#a1309b"


@dataclass(frozen=True)
class Node:
    """A node by its ``key`` in the template; ``links`` name another node's key and the number of its output."""

    key: str
    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    links: dict[str, tuple[str, int]] = field(default_factory=dict)
    title: str = ""
    height: int = 0
    models: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Column:
    """Nodes below one another. ``groups`` frame nodes of the column: a title, a colour, and their keys."""

    width: int
    nodes: tuple[Node, ...]
    groups: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


def note(height: int) -> Node:
    """Return the note of a template, whose text is in ``workflow_notes.txt``."""
    return Node("note", "MarkdownNote", height=height)


def erase(concepts: str, model: str = "model", clip: tuple[str, int] = ("model", 1), **values: Any) -> Node:
    return Node("erase", "ErasureRECE", {"concepts": concepts, **values}, {"model": (model, 0), "clip": clip})


def save() -> Node:
    return Node("save", "ErasureSave", {}, {"erasure": ("erase", 2)})


def bake(prefix: str) -> Node:
    return Node(
        "bake", "ErasureBake", {"checkpoint": SD15["name"], "filename_prefix": prefix}, {"erasure": ("erase", 2)}
    )


def compare(prompts: str, *, erased: str, clip: bool = False, **values: Any) -> Node:
    """Return the node that draws the prompts before and after, on the toy model."""
    links = {"model": ("model", 0), "clip": ("model", 1), "vae": ("model", 2), "latent": ("size", 0)}
    links |= {"model_1": ("erase", 0)} | ({"clip_1": ("erase", 1)} if clip else {})
    drawn = {"prompts": prompts, "labels": erased, "seed": 1, "cfg": 3.0, "scheduler": "normal", **values}
    return Node("compare", "ErasureCompare", drawn, links)


def preview(key: str, source: tuple[str, int], title: str, height: int) -> Node:
    return Node(key, "PreviewImage", {}, {"images": source}, title, height)


def text(key: str, source: tuple[str, int], title: str) -> Node:
    return Node(key, "PreviewAny", {}, {"source": source}, title)


TOY = Node("model", "ErasureLoadToy")
BLUE_CAT = "a cat in the style of noto on a blue background"
GREEN_LION = "a lion in the style of noto on a green background"
RED_DOG = "a dog in the style of noto on a red background"


def toy_size(count: int) -> Node:
    return Node("size", "RepeatLatentBatch", {"amount": count}, {"samples": ("model", 3)}, "Pictures of each prompt")


def toy(
    method: Node, compared: Node, *, note_height: int, pictures: int = 2, below: tuple[Node, ...] = (),
    picture_height: int = 760, beside: tuple[Node, ...] = (),
) -> tuple[Column, ...]:  # fmt: skip
    """Return a template on the toy model: what it shows, the method, before and after, and the pictures."""
    return (
        Column(320, (note(note_height), TOY, toy_size(pictures))),
        Column(390, (method, *below), (("Erase", GREEN, (method.key, *(one.key for one in below))),)),
        Column(390, (compared,), (("Before and after", BLUE, ("compare",)),)),
        Column(480, (preview("picture", ("compare", 0), "Before and after", picture_height), *beside)),
    )


def sampler(key: str, model: tuple[str, int], positive: tuple[str, int], cfg: float, steps: int, title: str) -> Node:
    values = {"seed": 1, "steps": steps, "cfg": cfg, "sampler_name": "euler", "scheduler": "normal"}
    links = {"model": model, "positive": positive, "negative": ("negative", 0), "latent_image": ("size", 0)}
    return Node(key, "KSampler", values, links, title)


def decode(sampled: str, vae: tuple[str, int]) -> Node:
    return Node(f"{sampled}-decode", "VAEDecode", {}, {"samples": (sampled, 0), "vae": vae})


def own_model(
    loaders: tuple[Node, ...], erasing: Node, prompts: tuple[Node, ...], size: Node, saving: Node,
    vae: tuple[str, int], positive: tuple[str, int], cfg: float, steps: int, note_height: int,
) -> tuple[Column, ...]:  # fmt: skip
    """Return a template for a model of the user's: KSampler draws before and after."""
    before = sampler("before", (loaders[0].key, 0), positive, cfg, steps, "Before")
    after = sampler("after", ("erase", 0), positive, cfg, steps, "After")
    pictures = tuple(preview(f"{key}-picture", (f"{key}-decode", 0), key.title(), 406) for key in ("before", "after"))
    return (
        Column(280, (note(note_height), *loaders)),
        Column(360, (erasing, saving), (("Erase", GREEN, ("erase", saving.key)),)),
        Column(280, (*prompts, size), (("Prompt", PURPLE, tuple(one.key for one in (*prompts, size))),)),
        Column(270, (before, decode("before", vae), after, decode("after", vae))),
        Column(380, pictures),
    )


def model_file(name: str, url: str, directory: str) -> dict[str, str]:
    return {"name": name, "url": f"https://huggingface.co/{url}", "directory": directory}


THINGS = ("cat", "dog", "pizza", "apple", "banana", "frog", "cow", "crab", "lemon", "carrot", "monkey", "penguin")

SD15 = model_file(
    "v1-5-pruned-emaonly-fp16.safetensors",
    "Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
    "checkpoints",
)
SCHNELL = "flux1-schnell.safetensors"
FLUX = model_file(SCHNELL, f"Comfy-Org/flux1-schnell/resolve/main/{SCHNELL}", "diffusion_models")
FLUX_TEXT = tuple(
    model_file(name, f"comfyanonymous/flux_text_encoders/resolve/main/{name}", "text_encoders")
    for name in ("clip_l.safetensors", "t5xxl_fp16.safetensors")
)
FLUX_VAE = model_file(
    "ae.safetensors", "Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors", "vae"
)


def prompt_node(key: str, words: str, clip: tuple[str, int], title: str) -> Node:
    return Node(key, "CLIPTextEncode", {"text": words}, {"clip": clip}, title)


def checkpoint(saving: Node, note_height: int) -> tuple[Column, ...]:
    """Return a template for a checkpoint of the user's, that ends in a file."""
    clip = ("model", 1)
    load = Node("model", "CheckpointLoaderSimple", {"ckpt_name": SD15["name"]}, models=(SD15,))
    prompts = (
        prompt_node("positive", "a village at night in the style of van gogh", clip, "Prompt"),
        prompt_node("negative", "", clip, "Negative prompt"),
    )
    size = Node("size", "EmptyLatentImage", {"width": 512, "height": 512})
    erasing = erase("van gogh -> art", preserve="in the style of monet\nin the style of cezanne")
    return own_model(
        (load,), erasing, prompts, size, saving, ("model", 2), ("positive", 0), 7.0, 20, note_height=note_height
    )


def transformer() -> tuple[Column, ...]:
    names = {f"clip_name{number}": one["name"] for number, one in enumerate(FLUX_TEXT, start=1)}
    loaders = (
        Node("model", "UNETLoader", {"unet_name": SCHNELL}, models=(FLUX,)),
        Node("clip", "DualCLIPLoader", {**names, "type": "flux"}, models=FLUX_TEXT),
        Node("vae", "VAELoader", {"vae_name": FLUX_VAE["name"]}, models=(FLUX_VAE,)),
    )
    prompts = (
        prompt_node("positive", "a village at night in the style of van gogh", ("clip", 0), "Prompt"),
        Node("negative", "ConditioningZeroOut", {}, {"conditioning": ("positive", 0)}, "No negative prompt"),
    )
    size = Node("size", "EmptySD3LatentImage", {"width": 1024, "height": 1024})
    erasing = erase("van gogh -> art", clip=("clip", 0), preserve="in the style of monet\nin the style of cezanne")
    return own_model(
        loaders, erasing, prompts, size, save(), ("vae", 0), ("positive", 0), 1.0, 4,
        note_height=380,
    )  # fmt: skip


def many() -> tuple[Column, ...]:
    listing = Node("list", "PrimitiveStringMultiline", {"value": "\n".join(THINGS)}, title="The list")
    erasing = erase("", preset="several")
    erasing = replace(erasing, links={**erasing.links, "concepts": ("list", 0)})
    keep = Node(
        "keep", "ErasureSaveStatistics", {"filename_prefix": "twelve-things"}, {"statistics": ("erase", 3)},
    )  # fmt: skip
    owl = "an owl in the style of noto on a yellow background"
    compared = compare(
        f"{BLUE_CAT}\na pizza in the style of noto on a red background\n{GREEN_LION}\n{owl}", erased="12 things erased"
    )
    first, erased, drawn, shown = toy(erasing, compared, note_height=400, pictures=1, below=(keep,))
    words, model, size = first.nodes
    return (
        replace(first, nodes=(words, listing, model)), erased, replace(drawn, nodes=(*drawn.nodes, size)), shown,
    )  # fmt: skip


def learned(method: Node, note_height: int, clip: bool = False) -> tuple[Column, ...]:
    links = {"model": ("model", 0), "clip": ("model", 1)}
    loss = preview("loss", ("erase", 3), "Loss", 250)
    compared = compare(f"{BLUE_CAT}\n{GREEN_LION}", erased="cat erased", clip=clip)
    return toy(
        replace(method, links=links), compared, note_height=note_height, picture_height=620, beside=(loss,),
        below=(save(),),
    )  # fmt: skip


def purify() -> tuple[Column, ...]:
    drawing = Node(
        "before", "KSampler",
        {"seed": 1, "steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal"},
        {"model": ("model", 0), "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": ("size", 0)},
        "Draw cats",
    )  # fmt: skip
    prompts = (
        prompt_node("positive", BLUE_CAT, ("model", 1), "Prompt"),
        prompt_node("negative", "", ("model", 1), "Negative prompt"),
    )
    decoding = decode("before", ("model", 2))
    pictures = preview("before-picture", (decoding.key, 0), "The pictures", 420)
    parts = {"model": ("model", 0), "clip": ("model", 1), "vae": ("model", 2), "erasure": ("erase", 2)}
    pure = Node("pure", "ErasurePurify", {"prompt": BLUE_CAT}, {**parts, "images": (decoding.key, 0)})
    return (
        Column(320, (note(380), TOY, toy_size(4))),
        Column(390, (erase("cat -> dog"), pure), (("Erase", GREEN, ("erase",)), ("Change pictures", BLUE, ("pure",)))),
        Column(390, (*prompts, drawing, decoding), (("Pictures to change", PURPLE, ("positive", "before-decode")),)),
        Column(480, (pictures, preview("after", ("pure", 0), "Without cats", 420))),
    )


def check() -> tuple[Column, ...]:
    before = {"model": ("model", 0), "clip": ("model", 1), "vae": ("model", 2), "erased_model": ("erase", 0)}
    report = Node(
        "report", "ErasureReport",
        {"concept": "cat", "prompts": BLUE_CAT, "seed": 1, "cfg": 3.0, "scheduler": "normal"},
        {**before, "latent": ("size", 0)},
    )  # fmt: skip
    attack = Node(
        "attack", "ErasureRedTeam",
        {"concept": "cat", "prompts": "kitten\nkatze\na small pet that says meow", "steps": 80, "sampling_steps": 15,
         "guidance": 3.0, "seed": 1},
        before,
    )  # fmt: skip
    pictures = (
        preview("report-picture", ("report", 0), "Report", 420),
        preview("attack-picture", ("attack", 0), "Attacks", 420)
    )  # fmt: skip
    measured, attacked = text("report-text", ("report", 2), "Verdict"), text("attack-text", ("attack", 4), "Verdict")
    return (
        Column(280, (note(460), TOY, toy_size(4))),
        Column(330, (erase("cat -> dog"),), (("Erase", GREEN, ("erase",)),)),
        Column(330, (report, measured), (("Measure", BLUE, ("report", "report-text")),)),
        Column(330, (attack, attacked), (("Attack", PURPLE, ("attack", "attack-text")),)),
        Column(310, pictures),
    )


def _templates() -> Mapping[str, tuple[Column, ...]]:
    cats = compare(f"{BLUE_CAT}\n{GREEN_LION}", erased="cat erased")
    styles = compare(
        f"{BLUE_CAT}\na cat in the style of twemoji on a blue background", erased="noto erased"
    )  # fmt: skip
    fast = compare(f"{BLUE_CAT}\n{GREEN_LION}", erased="cat erased", negative="cat", cfg=1.0)
    return {
        "01 Erase an object": toy(
            erase("cat -> dog"), cats, note_height=460, below=(save(),)
        ),
        "02 Erase a style": toy(
            erase("noto -> fluent"), styles, note_height=280, below=(save(),)
        ),
        "03 Erase from your checkpoint": checkpoint(save(), 470),
        "04 Erase from a transformer": transformer(),
        "05 Erase many concepts": many(),
        "06 Erase from a fast model at CFG 1": toy(
            erase("cat -> dog"), fast, note_height=340, below=(save(),)
        ),
        "07 Learn to forget with few-shot": learned(
            Node("erase", "ErasureFewShot", {"concept": "cat -> dog"}), 460, clip=True
        ),
        "08 Learn to forget with DoCo": learned(Node("erase", "ErasureDoCo", {"concept": "cat -> dog"}), 300),
        "09 Learn to forget with AbO": learned(Node("erase", "ErasureAbO", {"concept": "cat -> dog"}), 280),
        "10 Take it out of a picture": purify(),
        "11 Check an erasure": check(),
        "12 Bake a checkpoint": checkpoint(bake("erasure/no-van-gogh"), 500),
    }  # fmt: skip


TEMPLATES = _templates()
