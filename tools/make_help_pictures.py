"""Draw README's picture and those of the help pages (web/docs/*.jpg) on the embedded model, with the pack's commands.

    python tools/make_help_pictures.py [name ...]      # all, or those named, as in DRAWN

Takes some minutes on a CPU.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from erasure_core import Erasure, generate, purify
from erasure_core.commands.main import main as command
from erasure_core.drawing.contact_sheet import Section, contact_sheet
from erasure_core.toy import load_toy

ROOT = Path(__file__).resolve().parent.parent
HELP, README = ROOT / "web" / "docs", ROOT / "docs" / "before-after.jpg"
WIDTH, QUALITY = 900, 82  # pixels, and of JPEG
SEED = 1
CAT, STYLE = "cat.safetensors", "style.safetensors"
LIONS = ("a lion in the style of noto", "a lion in the style of blob")
ANIMALS = ("a cat on a red background", "a cat in the style of noto", "a lion in the style of noto")


def run(*words: str) -> None:
    """Run a command of the pack; a failure ends the script."""
    if code := command(list(words)):
        raise SystemExit(f"{words[0]} ended with {code}")


def compare(out: str, prompts: tuple[str, ...], *more: str) -> None:
    asked = [word for prompt in prompts for word in ("--prompt", prompt)]
    run("compare", "--model", "toy", *asked, *more, "--out", out)


def erasures() -> None:
    """Make the erasures that the pictures show."""
    run("erase", "--model", "toy", "--concept", "cat -> dog", "--out", CAT)
    run("erase", "--model", "toy", "--concept", "noto -> fluent", "--out", STYLE)


def erase(out: str) -> None:
    compare(out, ANIMALS, "--erasure", CAT)


def style(out: str) -> None:
    compare(out, LIONS, "--erasure", STYLE)


def difference(out: str) -> None:
    compare(out, ANIMALS, "--erasure", CAT, "--erasure", STYLE, "--difference")


def report(out: str) -> None:
    run(*f"report --model toy --erasure {CAT} --pictures 4 --neighbours 4 --steps 12 --out measured".split())
    Path("measured/report.png").rename(out)


def attack(out: str) -> None:
    run(*f"attack --model toy --erasure {CAT} --steps 20 --pictures 6 --sampling-steps 12 --out attacked".split())
    Path("attacked/attack.png").rename(out)


def learned(out: str, method: str, concept: str, prompts: tuple[str, ...]) -> None:
    file = f"{method}.safetensors"
    run("erase", "--model", "toy", "--method", method, "--concept", concept, "--out", file)
    compare(out, prompts, "--erasure", file)


def few_shot(out: str) -> None:
    learned(out, "few_shot", "noto -> fluent", LIONS)


def doco(out: str) -> None:
    learned(out, "doco", "cat -> dog", ANIMALS)


def abo(out: str) -> None:
    learned(out, "abo", "cat -> dog", ANIMALS)


def pure(out: str) -> None:
    """Pictures that are there already, and what purifying makes of each with its own prompt."""
    model, erasure = load_toy(), Erasure.load(CAT)
    before = [generate(model, [prompt], [SEED]) for prompt in ANIMALS]
    after = [purify(model, erasure, pictures, prompt=prompt) for prompt, pictures in zip(ANIMALS, before, strict=True)]
    rows = [("a picture that is there", torch.cat(before)), ("purified of cat -> dog", torch.cat(after))]
    contact_sheet([Section("Purify", ANIMALS, rows)]).save(out)


def readme(out: str) -> None:
    """Two erasures beside the unedited model; columns are called after the files."""
    named = {CAT: "cat -> dog.safetensors", STYLE: "noto -> fluent.safetensors"}
    for file, name in named.items():
        shutil.copy(file, name)
    lion = "a lion in the style of noto on a blue background"
    robot = "a robot in the style of blob on a green background"
    shown = [word for name in named.values() for word in ("--erasure", name)]
    compare(out, ("a cat on a red background", lion, robot), *shown)


DRAWN = {
    "readme": readme,
    "erase": erase,
    "style": style,
    "compare": difference,
    "report": report,
    "attack": attack,
    "few_shot": few_shot,
    "doco": doco,
    "abo": abo,
    "purify": pure,
}


def main() -> None:
    names = sys.argv[1:] or list(DRAWN)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        erasures()
        for name in names:
            DRAWN[name](f"{name}.png")
            picture = Image.open(f"{name}.png").convert("RGB")
            picture.thumbnail((WIDTH, picture.height), Image.Resampling.LANCZOS)
            place = README if name == "readme" else HELP / f"{name}.jpg"
            picture.save(place, quality=QUALITY, optimize=True)
            print(place)


if __name__ == "__main__":
    main()
