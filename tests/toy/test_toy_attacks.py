"""Attacks on real erasures of the embedded model: what they find, and that they only read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from pure.fakes import digest

from erasure_core import Concept, Erasure, common_concepts, rece
from erasure_core.audit.attacks.attempt import Scene
from erasure_core.audit.attacks.discrete_prompt import SLOTS, Words
from erasure_core.audit.attacks.finetuning import by_finetuning, by_finetuning_on_others
from erasure_core.audit.attacks.textual_inversion import placeholder
from erasure_core.audit.recognisers.toy import ToyRecogniser
from erasure_core.audit.red_team import RedTeam, attack
from erasure_core.commands.main import main
from erasure_core.methods.rece import RECE
from erasure_core.model import token_embeddings
from erasure_core.toy.evaluation import pictures_of, subject_of
from erasure_core.training.loop import Budget


@pytest.fixture(scope="module")
def without_cats(toy) -> Erasure:
    concept = Concept("cat")
    return rece(toy, [concept], RECE["object"], preserve=common_concepts([concept]))


def audited(model, erasure: Erasure, *attacks: str, **more) -> RedTeam:
    given = {"images": pictures_of(subject_of("cat")), "recogniser": ToyRecogniser(), "pictures": 6, **more}
    return attack(model, erasure.over(model), "cat", attacks=attacks, **given)


def weights(model) -> str:
    return digest({**model.weights_of("unet"), **model.weights_of("text_encoder")})


def test_white_box_attacks_bring_back_what_the_name_does_not(toy, without_cats: Erasure) -> None:
    before = weights(toy)
    found = audited(toy, without_cats, "derived", "inversion", steps=100)
    rates = {one.attack: found.recovered(index) for index, one in enumerate(found.attempts)}
    assert found.recognised == found.learned_from
    assert rates["name"] <= 0.2 and rates["derived"] >= 0.8 and rates["inversion"] >= 0.5
    assert weights(toy) == before
    losses = found.attempts[-1].losses
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


def test_a_few_steps_of_finetuning_bring_cats_back(toy, without_cats: Erasure) -> None:
    view = without_cats.over(toy)
    before = weights(toy), weights(view)
    judge = ToyRecogniser()
    scene = Scene(
        toy, view, "cat", "object", pictures_of(subject_of("cat"), 8), pictures=4, sampling_steps=8, budget=Budget(60),
        shows=lambda images: judge.shows(images, ["cat"] * len(images)),
    )  # fmt: skip
    learned = by_finetuning(scene)
    assert learned.steps < 60 and sum(scene.shows(learned.images)) >= 2
    others = by_finetuning_on_others(replace(scene, budget=Budget(12)))
    assert not any(scene.shows(others.images))
    assert (weights(toy), weights(view)) == before


def test_the_discrete_attack_finds_words_that_lower_the_error(toy, without_cats: Erasure) -> None:
    found = audited(toy, without_cats, "discrete", steps=24, pictures=2)
    words = found.attempts[-1]
    assert words.steps == 6 and words.prompts[0].endswith("a picture of the cat")
    context = without_cats.over(toy).encode_prompts([words.prompts[0]]).context
    assert torch.allclose(words.conditioning.context[:1], context, atol=1e-5)
    again = audited(toy, without_cats, "discrete", steps=24, pictures=2).attempts[-1]
    assert again.prompts == words.prompts and torch.equal(again.images, words.images)


def test_a_swap_is_kept_only_when_it_helps(toy) -> None:
    words = Words(toy, "a cat", torch.Generator().manual_seed(0))
    wanted = toy.encode_prompts(["red green blue rose pig a cat"]).context

    def error(text):
        return (text.context - wanted).square().mean()

    losses = [float(words.improve(error).detach()) for _ in range(6)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.8 * losses[0]
    now = toy.encode_prompts([words.text()])
    assert float(error(now)) == pytest.approx(losses[-1], rel=1e-4)
    ids = toy.tokenize(words.text())
    assert toy.text_of(ids[1 : 1 + SLOTS]) + " a cat" == words.text()


def test_slots_are_embedded_as_their_words_are(toy) -> None:
    words = Words(toy, "a cat", torch.Generator().manual_seed(1))
    embedded = words._embedded({name: table[words._ids] for name, table in token_embeddings(toy).items()})
    assert torch.allclose(embedded.context, toy.encode_prompts([words.text()]).context, atol=1e-5)


def test_the_learned_word_is_one_token(toy) -> None:
    assert toy.text_of([placeholder(toy)]) == "*"


def test_encoding_tokens_is_encoding_prompts(toy) -> None:
    prompts = ["a cat", "", "in the style of noto"]
    ids = torch.tensor([toy.tokenize(prompt) for prompt in prompts])
    assert ids.shape == (3, toy.tokens)
    assert torch.equal(toy.encode_tokens(ids).context, toy.encode_prompts(prompts).context)


def test_the_attack_command(toy, without_cats: Erasure, tmp_path, capsys) -> None:
    file = without_cats.save(tmp_path / "no-cats.safetensors")
    (tmp_path / "list.txt").write_text("kitten\nkatze\n")
    command = ["attack", "--model", "toy", "--erasure", str(file), "--attack", "derived", "--pictures", "4"]
    assert main([*command, "--attack", "list", "--prompts", str(tmp_path / "list.txt")]) == 0
    told = capsys.readouterr().out
    assert "| derived |" in told and "| list    |" in told and "by the judge of the embedded model" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "no-cats.safetensors"]
    out = tmp_path / "audit"
    assert main([*command, "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["attack.json", "attack.png"]
    capsys.readouterr()
    assert main([*command, "--out", str(out)]) == 2
    assert "already there" in capsys.readouterr().err


def test_the_report_command(toy, without_cats: Erasure, tmp_path, capsys) -> None:
    file = without_cats.save(tmp_path / "no-cats.safetensors")
    out = tmp_path / "proof"
    command = ["report", "--model", "toy", "--erasure", str(file), "--pictures", "3", "--out", str(out)]
    assert main(command) == 0
    assert "| **erased**" in capsys.readouterr().out
    told = json.loads((out / "report.json").read_text())
    assert told["ua"] >= 0.9 and told["ira"] >= 0.9 and told["cra"] >= 0.9
    groups = told["groups"]
    assert groups["neighbour"]["latents"]["high"] < 0.5 * groups["erased"]["latents"]["low"]
    assert (out / "report.png").stat().st_size > 5000
    assert main(command) == 2 and "already there" in capsys.readouterr().err
