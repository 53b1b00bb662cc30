"""Few-shot: its first updates against its formula, which layers it trains, its pictures, and when it ends."""

from __future__ import annotations

import math

import pytest
import torch
from pure.fakes import FakeModel, TwoTowers
from pure.learned import IMAGES, KINDS, Watched, dense, run_few_shot

from erasure_core import Erasure
from erasure_core.methods.few_shot import TEMPLATES, FewShotSettings, Watch, few_shot, next_batch, trained_weights
from erasure_core.training.denoising import denoising_error


def test_few_shot_watches_eight_pictures_at_fixed_timesteps() -> None:
    model, latents = FakeModel(), torch.arange(3.0)[:, None, None, None].expand(3, 4, 4, 4)
    watch = Watch(model, latents, "a cat", seed=2)
    clean, noise, times = watch._batch
    assert clean[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1] and times.tolist() == [6, 18, 31, 43, 56, 68, 81, 93]
    assert watch.growth(model) == 1
    other = FakeModel(seed=1)
    text = model.encode_prompts(["a cat"]).expand(8)
    before, after = (denoising_error(one, clean, noise, times, text) for one in (model, other))
    assert watch.growth(other) == pytest.approx(float(after / before))


def test_few_shot_draws_noise_where_there_are_no_pictures() -> None:
    drawn = next_batch(torch.empty(0, 4, 5, 6), 3, 0, torch.Generator().manual_seed(1))
    assert drawn.shape == (3, 4, 5, 6) and 0.5 < drawn.std() < 1.5


def test_pictures_may_be_black_and_white() -> None:
    assert run_images(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)).deltas
    for bad in (1.5, -0.5):
        with pytest.raises(ValueError, match="from 0 to 1"):
            run_images(torch.full((2, 3, 4, 4), bad))
    with pytest.raises(ValueError, match=r"images must be \[n, 3, height, width\] .*, got \(2, 1, 4, 4\)"):
        run_images(torch.zeros(2, 1, 4, 4))


def run_images(images: torch.Tensor) -> Erasure:
    return few_shot(FakeModel(), "cat", FewShotSettings(learning_rate=1e-3, steps=2), images=images)


def test_few_shot_needs_layers_that_have_names() -> None:
    model = FakeModel()
    model.weights_of = lambda scope: {f"text_encoder.{part}": torch.ones(2, 2) for part in ("fc1.weight", "fc1.bias")}
    with pytest.raises(ValueError, match="the text encoder has no layers that can be told by their names"):
        run_few_shot(model)


def test_few_shot_needs_the_activations_of_one_latent() -> None:
    model = Watched()
    run_few_shot(model, batch_size=3, steps=2)
    assert model.sizes == [1] * 7  # the first tells what memory is needed


@pytest.mark.parametrize("kind", KINDS)
def test_few_shot_is_its_formula(kind: str) -> None:
    """The first updates against a literal re-implementation: Adam with coupled weight decay, minus the error."""
    model, steps, rate = FakeModel(prediction_type=kind), 3, 1e-3
    erasure = run_few_shot(model, steps=steps, learning_rate=rate, seed=6, batch_size=2)
    mine, losses = dense(erasure), []

    draws = torch.Generator().manual_seed(6)
    latents = model.encode_images(IMAGES[torch.randperm(4, generator=draws)])
    weights = {name: weight.clone() for name, weight in trained_weights(model.text).items()}
    moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    for step in range(steps):
        clean = latents[[(2 * step) % 4, (2 * step + 1) % 4]]
        which = torch.randint(len(TEMPLATES["object"]), (2,), generator=draws).tolist()
        times = torch.randint(100, (2,), generator=draws)
        noise = torch.randn(clean.shape, generator=draws)
        a = model.alphas_cumprod[times].float().reshape(2, 1, 1, 1)
        for weight in weights.values():
            weight.requires_grad_()
        prompts = [TEMPLATES["object"][index].format("cat") for index in which]
        text = model.with_weights(weights).encode_prompts(prompts)
        output = model.predict_noise(a.sqrt() * clean + (1 - a).sqrt() * noise, times, text)
        target = noise if kind == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean
        loss = -((output - target) ** 2).mean()
        losses.append(float(loss.detach()))
        grads = torch.autograd.grad(loss, list(weights.values()))
        for (name, weight), grad in zip(list(weights.items()), grads, strict=True):
            grad = grad + 1e-8 * weight.detach()
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * grad, 0.98 * v + 0.02 * grad**2
            moments[name] = (m, v)
            m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.98 ** (step + 1))
            weights[name] = weight.detach() - rate * m_hat / (v_hat.sqrt() + 1e-6)
    assert erasure.origins[0].losses == pytest.approx(losses, rel=1e-4)
    for name, weight in weights.items():
        torch.testing.assert_close(mine[name], weight - model.text[name], rtol=1e-3, atol=1e-6)


def clip_names(tower: str, layers: int) -> list[str]:
    """As in transformers."""
    parts = [f"self_attn.{one}_proj" for one in "kvq"] + ["self_attn.out_proj", "layer_norm1", "mlp.fc1", "mlp.fc2"]
    stem = f"{tower}.text_model"
    return [
        f"{stem}.embeddings.token_embedding.weight",
        *(f"{stem}.encoder.layers.{n}.{part}.{kind}" for n in range(layers) for part in parts
          for kind in ("weight", "bias")),
        f"{stem}.final_layer_norm.weight",
        f"{tower}.text_projection.weight",
    ]  # fmt: skip


def test_few_shot_trains_what_the_paper_says() -> None:
    """``mlp`` of every layer and ``self_attn`` of the last, which is another one in each of two text encoders."""
    names = clip_names("text_encoder", 12) + clip_names("text_encoder_2", 32)
    found = trained_weights({name: torch.zeros(1) for name in names})
    expected = {
        f"{tower}.text_model.encoder.layers.{n}.mlp.fc{i}.{kind}"
        for tower, layers in (("text_encoder", 12), ("text_encoder_2", 32)) for n in range(layers)
        for i in (1, 2) for kind in ("weight", "bias")
    } | {
        f"{last}.self_attn.{part}_proj.{kind}"
        for last in ("text_encoder.text_model.encoder.layers.11", "text_encoder_2.text_model.encoder.layers.31")
        for part in ("k", "v", "q", "out") for kind in ("weight", "bias")
    }  # fmt: skip
    assert set(found) == expected and len(found) == 4 * 44 + 16


@pytest.mark.parametrize("towers", ["both", "text_encoder", "text_encoder_2"])
def test_few_shot_trains_the_text_encoders_that_are_named(towers: str) -> None:
    erasure = few_shot(TwoTowers(), "cat", FewShotSettings(steps=2, learning_rate=1e-3), images=IMAGES, towers=towers)
    wanted = {"text_encoder", "text_encoder_2"} if towers == "both" else {towers}
    assert {name.partition(".")[0] for name in erasure.deltas} == wanted
    assert erasure.origins[0].settings["towers"] == towers
    largest = {name: float(change.abs().max()) for name, change in dense(erasure).items()}
    assert all(change > 1e-4 for change in largest.values()), largest


def test_few_shot_with_a_text_encoder_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="towers is 'text_encoder_2' but the model has text_encoder; 'both' trains"):
        run_few_shot(FakeModel(), towers="text_encoder_2")
    with pytest.raises(ValueError, match="towers must be one of both, text_encoder, text_encoder_2, got 'clip_g'"):
        run_few_shot(FakeModel(), towers="clip_g")


def test_few_shot_leaves_layers_alone_that_the_model_does_not_read() -> None:
    """The last layer is then the last that is read."""
    model = TwoTowers()
    for name, weight in list(model.text.items()):
        if ".layers.1." in name:
            model.text[name.replace(".layers.1.", ".layers.2.")] = weight.clone()
    found = {name.removeprefix("text_encoder.text_model.encoder.") for name in run_few_shot(model).deltas}
    assert "layers.1.self_attn.q_proj.weight" in found and not [name for name in found if ".layers.2." in name]


def test_few_shot_passes_over_its_images_in_turn() -> None:
    latents = torch.arange(3.0).reshape(3, 1, 1, 1)
    seen = [next_batch(latents, 2, step, torch.Generator()).flatten().tolist() for step in range(3)]
    assert seen == [[0, 1], [2, 0], [1, 2]]


def test_few_shot_without_images() -> None:
    erasure = few_shot(FakeModel(), "cat", FewShotSettings(steps=2, learning_rate=1e-3), images=None)
    assert erasure.origins[0].settings["images"] == 0
    assert max(float(change.abs().max()) for change in dense(erasure).values()) > 1e-4


@pytest.mark.parametrize("images", [IMAGES, None])
def test_few_shot_ends_once_the_error_has_grown(images: torch.Tensor | None) -> None:
    model = FakeModel()

    def run(steps: int, growth: float = math.inf) -> Erasure:
        settings = FewShotSettings(steps=steps, learning_rate=1e-3, growth=growth)
        return few_shot(model, "cat", settings, images=images, seed=2)

    erasure = run(200, growth=1.5)
    steps = len(erasure.origins[0].losses)
    assert 2 < steps < 200
    same = run(steps)
    assert all(torch.equal(a, b) for a, b in zip(dense(same).values(), dense(erasure).values(), strict=True))
    latents = torch.empty(0, 4, 4, 4)
    if images is not None:
        latents = model.encode_images(images[torch.randperm(4, generator=torch.Generator().manual_seed(2))])
    watch = Watch(model, latents, TEMPLATES["object"][0].format("cat"), seed=2)
    grown = []
    for count in (steps - 1, steps):
        deltas = dense(run(count))
        grown.append(watch.growth(model.with_weights({n: model.text[n] + change for n, change in deltas.items()})))
    assert grown[0] < 1.5 <= grown[1]


def test_few_shot_with_a_growth_that_makes_no_sense() -> None:
    for growth in (1.0, math.nan):
        with pytest.raises(ValueError, match="growth must be above 1"):
            few_shot(FakeModel(), "cat", FewShotSettings(growth=growth), images=IMAGES)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(0, 3, 4, 4), r"images must be \[n, 3, height, width\]"),
        (torch.rand(4, 4, 3), r"images must be"),
        (torch.rand(2, 3, 4, 4) * 255, "from 0 to 1"),
        (torch.full((2, 3, 4, 4), math.nan), "finite"),
    ],
)
def test_images_that_cannot_be_used(images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        few_shot(FakeModel(), "cat", images=images)


def test_few_shot_takes_one_concept_and_by_ascent_no_replacement() -> None:
    with pytest.raises(ValueError, match="one concept at a time"):
        few_shot(FakeModel(), "cat\ndog", images=IMAGES)
    with pytest.raises(ValueError, match="no replacement with the objective 'ascent'; write 'cat' without"):
        few_shot(FakeModel(), "cat -> dog", FewShotSettings(), images=IMAGES)
