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

from PIL import Image

from erasure_core.commands.main import main as command

ROOT = Path(__file__).resolve().parent.parent
HELP, README = ROOT / "web" / "docs", ROOT / "docs" / "before-after.jpg"
WIDTH, QUALITY = 900, 82  # pixels, and of JPEG
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


def few_shot(out: str) -> None:
    run(
        "erase",
        "--model",
        "toy",
        "--method",
        "few_shot",
        "--concept",
        "noto -> fluent",
        "--out",
        "few_shot.safetensors",
    )
    compare(out, LIONS, "--erasure", "few_shot.safetensors")


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
