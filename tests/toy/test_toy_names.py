"""Other names of a concept by the embedded model's own text encoder, and lists to preserve."""

from __future__ import annotations

import pytest

from erasure_core import Concept, Erasure, suggest
from erasure_core.commands.main import main
from erasure_core.concepts.aliases import candidates_of
from erasure_core.concepts.name_lists import listed_beside
from erasure_core.methods.rece import RECE, rece_with_statistics
from erasure_core.toy.captions import OBJECTS, SYNONYMS


@pytest.mark.parametrize(("name", "synonym"), SYNONYMS.items())
def test_a_synonym_is_nearer_than_any_other_object(toy, name: str, synonym: str) -> None:
    others = [thing for thing in OBJECTS if thing != name]
    (first, near), (_, next_best), *_ = suggest(toy, name, [*others, synonym], minimum=-1)
    assert first == synonym and near > 0.98 and next_best < 0.87


def test_names_that_the_table_knows_and_the_model_too(toy) -> None:
    for name, synonym in (("cat", "kitten"), ("dog", "puppy"), ("rabbit", "bunny"), ("doughnut", "donut")):
        assert [alias for alias, _ in suggest(toy, name)] == [synonym] and synonym in candidates_of(name)


def test_styles_are_apart(toy) -> None:
    ranked = suggest(toy, "in the style of noto", ["in the style of blob", "noto", "cat"], minimum=-1)
    assert [name for name, _ in ranked] == ["noto", "in the style of blob", "cat"] and ranked[0][1] > 0.87 > ranked[1][
        1
    ]


def test_the_toy_knows_what_its_captions_name(toy, caplog) -> None:
    known = [Concept(name) for name in ("a kitten", "cherries", "in the style of noto", "purple background", "robot")]
    rece_with_statistics(toy, known, RECE["general"])
    assert not caplog.records
    rece_with_statistics(toy, [Concept("kat"), Concept("zebra")], RECE["general"])
    (warning,) = caplog.messages
    assert "has not learned 'kat' (did you mean 'cat'?), 'zebra'; " in warning


def test_movements_are_preserved_and_a_kitten_is_erased(tmp_path, capsys) -> None:
    path = tmp_path / "no-cat.safetensors"
    erase = ["erase", "--model", "toy", "--concept", "cat -> dog", "--aliases", "--preserve-list", "movements", "--out"]
    assert main([*erase, str(path)]) == 0
    erasure, both = Erasure.load(path), (Concept("cat", "dog"), Concept("kitten", "dog"))
    assert erasure.concepts == both and "'kitten -> dog'" in capsys.readouterr().out
    assert set(listed_beside(both, "movements")) <= set(erasure.origins[0].settings["preserve"])
