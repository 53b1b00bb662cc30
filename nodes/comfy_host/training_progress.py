"""A training's progress in its node: the bar, the loss in the log, and pictures of the concept while it goes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence

import comfy.model_management
import comfy.utils
import latent_preview
from PIL import Image
from torch import Tensor

from ...erasure_core.drawing.contact_sheet import PAPER
from ...erasure_core.drawing.loss_curve import loss_curve
from ...erasure_core.model import DiffusionModel
from ...erasure_core.quoting import excerpt
from ...erasure_core.sampling.ddim import sample_latents
from .progress import shown_on
from .trainable_model import TrainableComfyModel

SECONDS = 4.0  # from one preview to the next, at least
SHARE = 0.1  # of the time of training that previews may take
STEPS, GUIDANCE = 8, 5.0  # of sampling, few for speed
SIDE = 256  # pixels of a picture
MOST_OF_A_PROBLEM = 200  # characters of what went wrong that a warning quotes
log = logging.getLogger(__name__)


class TrainingProgress:
    """Shows a node how far its training is, and from time to time what the model draws by then.

    ``model`` is the one that is trained, ``prompt`` what is drawn, and ``seed`` that of its noise. ``clock`` gives the
    seconds, by default those of the machine.
    """

    def __init__(self, model: TrainableComfyModel, prompt: str, seed: int, clock: Callable[[], float] = time.monotonic):
        self._model, self._prompt, self._seed, self._clock = model, prompt, seed, clock
        self._bar = comfy.utils.ProgressBar(1)
        self._report = shown_on(self._bar)
        self._last_tenth, self._due = -1, -math.inf
        self._before: Image.Image | None = None

    def callback(self, done: int, total: int, what: str) -> None:
        """Move the bar, log the loss after every tenth of the steps, and raise ComfyUI's exception on cancel."""
        self._report(done, total, what)
        tenth = 10 * done // total if done else -1
        if not done:
            log.info(what)
        elif tenth != self._last_tenth:
            log.info("%s, step %d of %d", what, done, total)
        self._last_tenth = tenth

    def preview(self, edited: Callable[[], DiffusionModel], losses: Sequence[float]) -> None:
        """Show what the unedited and the ``edited()`` model draw, and the ``losses``, unless it is too early for it.

        A preview that fails, as where memory runs out, is the last one, and a warning says so; training goes on.
        """
        began = self._clock()
        if began < self._due:
            return
        try:
            self._show(edited(), losses)
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:
            problem = excerpt(str(error) or error, MOST_OF_A_PROBLEM)
            log.warning("a preview of the training could not be drawn (%s); training goes on without previews", problem)
            self._due = math.inf
            comfy.model_management.soft_empty_cache()
        else:
            ended = self._clock()
            self._due = ended + max(SECONDS, (ended - began) / SHARE)

    def _show(self, edited: DiffusionModel, losses: Sequence[float]) -> None:
        self._before = self._before or self._drawn(self._model)
        sheet = progress_sheet(self._before, self._drawn(edited), losses)
        self._bar.update_absolute(self._bar.current, self._bar.total, ("JPEG", sheet, max(sheet.size)))

    def _drawn(self, model: DiffusionModel) -> Image.Image:
        latents = sample_latents(model, [self._prompt], [self._seed], steps=STEPS, guidance=GUIDANCE)
        return latent_picture(self._model.model, latents)


def latent_picture(model, latents: Tensor) -> Image.Image:
    """Return a quick picture of latents ``[1, c, h, w]``, as the previews of a sampler are made for this MODEL."""
    latent_format = model.model.latent_format
    previewer = latent_preview.get_previewer(model.load_device, latent_format) or latent_preview.Latent2RGBPreviewer(
        latent_format.latent_rgb_factors,
        latent_format.latent_rgb_factors_bias,
        latent_format.latent_rgb_factors_reshape,
    )
    return previewer.decode_latent_to_preview(latents.to(model.load_device)).convert("RGB")


def progress_sheet(before: Image.Image, now: Image.Image, losses: Sequence[float]) -> Image.Image:
    """Return the two pictures side by side above the curve of the losses."""
    curve = loss_curve(losses, f"before, and after {len(losses)} steps", (2 * SIDE, SIDE * 3 // 4))
    sheet = Image.new("RGB", (curve.width, SIDE + curve.height), PAPER)
    for place, picture in enumerate((before, now)):
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (place * SIDE, 0))
    sheet.paste(curve, (0, SIDE))
    return sheet
