"""Pictures while a node trains or samples: what they show, how often they come, and that they change nothing."""

import itertools
import logging

import comfy.utils
import latent_preview
import numpy as np
import pytest
import torch
from comfy.cli_args import LatentPreviewMethod, args
from comfy.model_management import InterruptProcessingException
from pack.erasure_core.methods.abo import AbOSettings, abo
from pack.erasure_core.sampling.ddim import sample_latents
from pack.nodes.comfy_host import training_progress
from pack.nodes.comfy_host.toy import load_toy
from pack.nodes.comfy_host.trainable_model import trainable
from pack.nodes.comfy_host.training_progress import SECONDS, SHARE, SIDE, TrainingProgress, latent_picture

SETTINGS = AbOSettings(steps=6, trajectories=2, sampling_steps=2, batch_size=2, learning_rate=3e-3)


@pytest.fixture(scope="module")
def toy():
    return load_toy()


@pytest.fixture
def previews(monkeypatch):
    """What a browser gets: (value, total, preview) of each report with a preview."""
    shown = []

    def hook(value, total, preview, node_id=None):
        if preview is not None:
            shown.append((value, total, preview))

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    return shown


class Clock:
    """Seconds that pass by one with each look at it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def an_hour_after_each_drawing():
    looks = itertools.count()
    return lambda: next(looks) // 2 * 3600.0


def learned(toy, clock):
    with trainable(*toy[:2]) as model:
        progress = TrainingProgress(model, "a cat", 0, clock)
        return abo(model, "cat -> dog", SETTINGS, callback=progress.callback, preview=progress.preview)


def parts(preview):
    """The picture before, the picture now, and the curve."""
    kind, sheet, size = preview
    assert kind == "JPEG" and size == max(sheet.size)
    pixels = np.asarray(sheet, np.float32)
    return pixels[:SIDE, :SIDE], pixels[:SIDE, SIDE:], pixels[SIDE:]


def test_a_training_shows_the_concept_before_and_now(toy, previews):
    shown = learned(toy, an_hour_after_each_drawing())
    assert len(previews) == SETTINGS.steps
    first, last = parts(previews[0][2]), parts(previews[-1][2])
    assert (previews[0][:2], previews[-1][:2]) == ((1, 6), (6, 6))
    assert np.array_equal(first[0], last[0]) and first[0].std() > 10, "the picture before stays, and is no blank"
    changes = [np.abs(now - before).mean() for before, now, _ in (first, last)]
    assert changes[1] > changes[0] > 0, "it changes with every update"
    assert not np.array_equal(first[2], last[2])
    with trainable(*toy[:2]) as model:
        unseen = abo(model, "cat -> dog", SETTINGS)
    assert unseen.origins[0].losses == shown.origins[0].losses


def test_previews_take_a_small_share_of_the_time(toy, previews):
    learned(toy, Clock())
    assert SECONDS < 1 / SHARE and [value for value, _, _ in previews] == [1], "a second's drawing is paid by ten"


@pytest.mark.parametrize("fails_at", [0, 1, 4])
def test_a_preview_that_fails_costs_previews_alone(toy, previews, monkeypatch, caplog, fails_at):
    """Picture 0 is that of the model before; what is drawn in one preview is not drawn again."""
    drawn = itertools.count()

    def run_out(*arguments, **more):
        if next(drawn) >= fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sample_latents(*arguments, **more)

    monkeypatch.setattr(training_progress, "sample_latents", run_out)
    with caplog.at_level(logging.WARNING):
        shown = learned(toy, an_hour_after_each_drawing())
    warnings = [record.getMessage() for record in caplog.records if "preview" in record.getMessage()]
    assert warnings == [
        "a preview of the training could not be drawn (CUDA out of memory.); training goes on without previews"
    ]
    assert len(previews) == max(fails_at - 1, 0) and next(drawn) == fails_at + 1, "none is tried after that"
    with trainable(*toy[:2]) as model:
        unseen = abo(model, "cat -> dog", SETTINGS)
    assert unseen.origins[0].losses == shown.origins[0].losses


def test_a_cancel_while_a_preview_is_shown_ends_the_training(toy, monkeypatch):
    def cancel(value, total, preview, node_id=None):
        if preview is not None:
            raise InterruptProcessingException

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
    with pytest.raises(InterruptProcessingException):
        learned(toy, Clock())


@pytest.mark.parametrize("method", LatentPreviewMethod)
def test_the_toys_previews_are_its_pictures(toy, monkeypatch, method):
    if hasattr(latent_preview, "set_preview_method"):
        latent_preview.set_preview_method(method.value)
    monkeypatch.setattr(args, "preview_method", method)
    with trainable(*toy) as model:
        latents = sample_latents(model, ["a cat"], [0])
        exact = model.decode_latents(latents)[0].movedim(0, -1)
        assert latents.shape[2:] == (8, 8)
    picture = torch.from_numpy(np.array(latent_picture(toy[0], latents), np.float32)) / 255
    assert (picture - exact).abs().max() < 2 / 255
