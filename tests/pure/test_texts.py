"""RECE on models that read more than a context: a pooled vector, two encoders, rows cut to the prompt."""

from __future__ import annotations

import pytest
import torch
from pure.fakes import LAYERS, FakeModel, Ragged, TwoTowers
from torch import Tensor

from erasure_core import Erasure, edit_map, rece, uce
from erasure_core.closed_form.derived_contexts import derived_context
from erasure_core.closed_form.linalg import gram_matrix
from erasure_core.methods.rece import ReceSettings
from erasure_core.model import CONTEXT, POOLED
from erasure_core.sampling.ddim import generate

SCALES = {"erase_scale": 1.0, "preserve_scale": 0.1, "ridge": 0.1}
LABEL, WIDTH = TwoTowers.LABEL, TwoTowers.POOLED_WIDTH


def edit_of(erasure: Erasure, entry: str = CONTEXT) -> Tensor:
    change = erasure.maps[entry].change.dense().double()
    return torch.eye(len(change), dtype=torch.float64) + change


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-4, atol=1e-4)


def rows_of(model: FakeModel, prompt: str, entry: str = CONTEXT) -> list[Tensor]:
    """Of each encoder, in float64."""
    (read,) = model.text_rows([prompt])
    return [part.rows.double() for part in read[entry]]


def test_the_fakes_are_what_they_say() -> None:
    two, ragged = TwoTowers().text_rows(["red fish"])[0], Ragged().text_rows(["red fish"])[0]
    assert [tuple(part.rows.shape) for part in two[CONTEXT]] == [(8, 24)]
    assert [tuple(part.rows.shape) for part in two[POOLED]] == [(1, WIDTH)]
    assert [(len(part.rows), part.last_content) for part in ragged[CONTEXT]] == [(8, 2), (4, 2)]


def test_a_pooled_vector_is_edited_by_a_map_of_its_own() -> None:
    model = TwoTowers()
    erasure = rece(model, "red fish -> dog", ReceSettings(loops=0), preserve=["bird"])
    assert set(erasure.deltas) == {*LAYERS, LABEL}
    concept, target, kept = (rows_of(model, prompt, POOLED) for prompt in ("red fish", "dog", "bird"))
    edit = edit_map(concept, target, kept, **SCALES)
    close(edit_of(erasure, POOLED), edit)
    change = erasure.deltas[LABEL].dense()
    close(change[:, :WIDTH], model.weights[LABEL][:, :WIDTH].double() @ (edit - torch.eye(WIDTH)))
    assert not change[:, WIDTH:].any(), "the sizes of the picture are no text"


def test_a_pooled_vector_becomes_its_targets() -> None:
    model = TwoTowers()
    (concept,), (target,), (kept,) = (rows_of(model, prompt, POOLED) for prompt in ("red fish", "dog", "bird"))
    weight = model.weights[LABEL][:, :WIDTH].double()
    erasure = rece(model, "red fish -> dog", ReceSettings(loops=0, ridge=1e-6), preserve=["bird"])
    edited = weight + erasure.deltas[LABEL].dense()[:, :WIDTH].double()
    torch.testing.assert_close(concept @ edited.T, target @ weight.T, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(kept @ edited.T, kept @ weight.T, rtol=1e-3, atol=1e-3)


def test_what_reads_a_pooled_vector_draws_other_pictures() -> None:
    """The erasure of the vector alone, and a negative prompt, change what is drawn."""
    model = TwoTowers()
    erasure = rece(model, "red fish -> dog")
    alone = Erasure({LABEL: erasure.deltas[LABEL]}, erasure.origins)
    settings = {"steps": 4, "guidance": 4.0}
    plain = generate(model, ["red fish"], [1], **settings)
    with alone.applied_to(model):
        assert not torch.allclose(generate(model, ["red fish"], [1], **settings), plain, atol=1e-3)
    assert not torch.allclose(generate(model, ["red fish"], [1], negative="dog", **settings), plain, atol=1e-3)


def test_a_pooled_vector_goes_along_with_what_is_made_of_an_erasure() -> None:
    model, other = TwoTowers(), TwoTowers(seed=5)
    erasure = rece(model, "red fish -> dog", ReceSettings(loops=0))
    rebased, made = erasure.rebased_on(other), rece(other, "red fish -> dog", ReceSettings(loops=0))
    both, small = erasure + rece(model, "cat"), erasure.compressed(max_rank=1)
    for name in made.deltas:
        close(rebased.deltas[name].dense(), made.deltas[name].dense())
    assert both.maps.keys() == small.maps.keys() == {CONTEXT, POOLED}
    assert small.rank == 1 and small.maps[POOLED].columns == (0, WIDTH)
    assert small.deltas[LABEL].down.shape == (1, WIDTH + TwoTowers.SIZES)
    with pytest.raises(ValueError, match=r"for text read as context 24 wide, pooled 10 wide, the model reads it as c"):
        erasure.rebased_on(FakeModel())


def test_encoders_in_a_row_are_aligned_each_by_itself() -> None:
    """From the last token of the name on, the padded rows and those cut to the prompt: 'a red fish' and 'dog'."""
    model = Ragged()
    found = edit_of(uce(model, "a red fish -> dog", preserve=["bird"]))
    (one, two), (first, second) = rows_of(model, "a red fish"), rows_of(model, "dog")
    assert (len(two), len(second)) == (5, 3)
    concepts, targets = [one[3:], two[3:]], [first[1:6], second[1:]]
    close(found, edit_map(concepts, targets, rows_of(model, "bird"), **SCALES))


def test_the_loop_faces_all_rows_of_encoders_in_a_row() -> None:
    model = Ragged()
    (one, two), (first, second) = rows_of(model, "a red fish"), rows_of(model, "dog")
    kept = rows_of(model, "bird")
    edit = edit_map([one[3:], two[3:]], [first[1:6], second[1:]], kept, **SCALES)
    gram = gram_matrix(weight.double() for weight in model.weights.values())
    whole = [one, torch.cat([two[:1], two[3:]])], [first, second]
    derived = [derived_context(rows, gram, edit, regularization=0.1) for rows in whole[0]]
    edit = edit @ edit_map(derived, whole[1], kept, **SCALES)
    close(edit_of(rece(model, "a red fish -> dog", ReceSettings(loops=1), preserve=["bird"])), edit)
