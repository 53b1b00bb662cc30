"""Train the embedded model from the npm packages, stage by stage; run it again to resume.

python tools/train_toy.py --work build/toy            # every stage that is not done yet
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import toy_export  # noqa: E402
import toy_judge  # noqa: E402
import toy_text  # noqa: E402
import toy_unet  # noqa: E402
import toy_vae  # noqa: E402
from toy_data import sprites  # noqa: E402
from toy_run import Run  # noqa: E402

DECODER, TEXT, UNET, JUDGE = 2800, 240, 3200, 2400  # steps
STAGES = ("vae", "text", "unet", "judge", "export")


def drawings(work: Path) -> torch.Tensor:
    cache = work / "sprites.pt"
    if not cache.exists():
        work.mkdir(parents=True, exist_ok=True)
        torch.save(sprites(work / "emoji").half(), cache)
    return torch.load(cache, weights_only=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/toy"))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    run = Run(args.work, args.work / "training-log.jsonl", args.seed)
    pictures = drawings(args.work)
    if "vae" in args.stages:
        toy_vae.train(run, pictures, DECODER)
    if "text" in args.stages:
        toy_text.train(run, toy_text.Wordings(), TEXT)
    if "unet" in args.stages:
        train_unet(run, pictures)
    if "judge" in args.stages:
        toy_judge.train(run, pictures, toy_vae.frozen(run, pictures), JUDGE)
    if "export" in args.stages:
        export(run, pictures)


def train_unet(run: Run, pictures: torch.Tensor) -> None:
    vae = toy_vae.frozen(run, pictures)
    words = toy_text.Wordings()
    encoder = toy_text.train(run, words, TEXT)
    cache = run.folder / "latents.pt"
    if not cache.exists():
        torch.save(toy_unet.latents(vae, pictures, run.seed), cache)
    examples = toy_unet.Examples(torch.load(cache, weights_only=True), words)
    toy_unet.train(run, examples, toy_text.contexts(encoder, words), vae, UNET, run.folder)


def export(run: Run, pictures: torch.Tensor) -> None:
    """What there is so far, the average of the UNet's weights where it still learns, into the package."""
    words = toy_text.Wordings()
    encoder = toy_text.train(run, words, TEXT)
    unet, judge = toy_unet.new_unet(), toy_judge.Judge()
    unet.load_state_dict(run.load("unet") if run.done("unet") else run.average("unet"))
    judge.load_state_dict(run.load("judge"))
    toy_export.export(encoder, words.token_ids, unet, toy_vae.frozen(run, pictures), judge)
    toy_export.renders(pictures)
    toy_export.log(run.log_file)


if __name__ == "__main__":
    main()
