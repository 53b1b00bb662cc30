"""What a MODEL is known to carry follows its patches: through clones, LoRAs and the stock nodes that merge."""

import comfy.weight_adapter
import pytest
import torch
from comfy_extras.nodes_model_merging import ModelAdd, ModelMergeBlocks, ModelMergeSimple, ModelSubtract
from pack.erasure_core import Concept, rece
from pack.erasure_core.closed_form.already_erased import ErasedAlreadyError, check_not_erased, remaining_share
from pack.erasure_core.methods.rece import ReceSettings
from pack.erasure_core.model import CONTEXT
from pack.nodes.comfy_host.erasures_of_model import erasures_of
from pack.nodes.comfy_host.model import ComfyModel
from pack.nodes.comfy_host.patches import apply_erasure
from pack.nodes.comfy_host.toy import load_toy

CAT, DOG = Concept("cat"), Concept("dog")


@pytest.fixture(scope="module")
def toy():
    return load_toy()[:2]


@pytest.fixture(scope="module")
def erasures(toy):
    """Of a cat, and of a dog on top of it; both are amplified, so that they end past their targets."""
    model, clip = toy
    first = rece(ComfyModel(model, clip), "cat", ReceSettings(amplification=1.4), preserve=["lion"])
    erased, _ = apply_erasure(model, clip, first)
    return first, rece(ComfyModel(erased, clip), "dog", ReceSettings(amplification=1.4), preserve=["lion"])


@pytest.fixture(scope="module")
def erased(toy, erasures):
    return apply_erasure(*toy, erasures[0])[0]


def merged(one, other, ratio):
    return ModelMergeSimple().merge(one, other, ratio)[0]


def strengths(model, *erasures):
    """How strongly a model is known to carry each of the erasures."""
    known = {one.concepts: one for one in erasures_of(model)}
    assert set(known) <= {one.concepts for one in erasures}
    scales = []
    for erasure in erasures:
        own = known.get(erasure.concepts)
        change = erasure.maps[CONTEXT].change.dense()
        scales.append(float((own.maps[CONTEXT].change.dense() * change).sum() / change.norm() ** 2) if own else 0.0)
    return scales


def is_refused(model, clip, concept):
    try:
        check_not_erased(ComfyModel(model, clip), [concept])
    except ErasedAlreadyError:
        return True
    return False


def check_explained(model, original, clip):
    """The maps that are known make the weights that are there of those of the original."""
    theirs, ours = (ComfyModel(one, clip).text_entries()[CONTEXT].weights for one in (original, model))
    for name, weight in theirs.items():
        for erasure in erasures_of(model):
            change = erasure.maps[CONTEXT].change
            weight = weight + weight @ change.up @ change.down
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9, 1.0])
def test_a_merge_with_the_original(toy, erasures, erased, ratio):
    model, clip = toy
    for one, share in ((merged(erased, model, ratio), ratio), (merged(model, erased, ratio), 1 - ratio)):
        assert strengths(one, erasures[0]) == pytest.approx([share], abs=1e-5)
        check_explained(one, model, clip)
        assert is_refused(one, clip, CAT) == (share > 0.8) and not is_refused(one, clip, DOG)


def test_merges_of_merges(toy, erasures, erased):
    model, clip = toy
    half = merged(model, erased, 0.5)
    quarter = merged(model, half, 0.5)
    assert strengths(quarter, erasures[0]) == pytest.approx([0.25], abs=1e-5)
    both = merged(merged(erased, model, 0.9), erased, 0.5)
    assert strengths(both, erasures[0]) == pytest.approx([0.95], abs=1e-5)
    for one in (quarter, both):
        check_explained(one, model, clip)


def test_sums_and_differences(toy, erasures, erased):
    model, clip = toy
    (change,) = ModelSubtract().merge(erased, model, 1.0)
    (again,) = ModelAdd().merge(model, change)
    (doubled,) = ModelAdd().merge(erased, erased)
    (none,) = ModelSubtract().merge(again, change, 1.0)
    assert strengths(again, erasures[0]) == pytest.approx([1.0])
    check_explained(again, model, clip)
    assert strengths(doubled, erasures[0]) == pytest.approx([1.0])
    assert is_refused(again, clip, CAT) and is_refused(doubled, clip, CAT) and not is_refused(none, clip, CAT)


def test_a_merge_by_blocks_is_as_strong_as_its_strongest(toy, erasures, erased):
    model, clip = toy
    for input, out, share in ((0.0, 0.0, 0.0), (0.2, 0.9, 0.9), (1.0, 0.0, 1.0)):
        (one,) = ModelMergeBlocks().merge(erased, model, input=input, middle=0.0, out=out)
        assert strengths(one, erasures[0]) == pytest.approx([share], abs=1e-5)
        assert is_refused(one, clip, CAT) == (share > 0.8)


def test_a_chain_through_a_merge(toy, erasures, erased):
    model, clip = toy
    chain, _ = apply_erasure(erased, clip, erasures[1])
    assert strengths(chain, *erasures) == pytest.approx([1, 1])
    assert strengths(merged(model, chain, 0.0), *erasures) == pytest.approx([1, 1])
    check_explained(merged(model, chain, 0.0), model, clip)
    assert strengths(merged(erased, chain, 0.25), *erasures) == pytest.approx([1, 0.75])
    assert is_refused(merged(model, chain, 0.0), clip, DOG)


def test_strengths_add_up(toy, erasures):
    model, clip = toy
    weak, _ = apply_erasure(model, clip, erasures[0], strength_model=0.25)
    none, _ = apply_erasure(model, clip, erasures[0], strength_model=0.0)
    assert strengths(weak, erasures[0]) == pytest.approx([0.25]) and erasures_of(none) == ()
    assert not is_refused(weak, clip, CAT)
    twice, _ = apply_erasure(weak, clip, erasures[0])
    assert len(erasures_of(twice)) == 2 and is_refused(twice, clip, CAT)


def test_what_else_is_done_to_a_model(toy, erasures, erased):
    """A clone, a LoRA on top, weights that are set anew in one layer, and in all."""
    model, clip = toy
    assert strengths(erased.clone(), erasures[0]) == pytest.approx([1.0])
    keys = list(erased.patches)
    lora = comfy.weight_adapter.LoRAAdapter(set(), (torch.ones(96, 1), torch.ones(1, 192), None, None, None, None))
    loaded = erased.clone()
    assert loaded.add_patches({key: lora for key in keys[:1]}, 0.1)
    assert strengths(loaded, erasures[0]) == pytest.approx([1.0])
    plain = model.model_state_dict()
    for places, share in ((keys[:1], [1.0]), (keys, [0.0])):
        anew = erased.clone()
        anew.add_patches({key: ("set", (plain[key],)) for key in places})
        assert strengths(anew, erasures[0]) == pytest.approx(share)
    assert erasures_of(model) == ()


def test_what_is_left_is_what_the_weights_say(toy, erasures, erased):
    """The share of the way that is left, by the maps and by the layers themselves."""
    model, clip = toy
    seen = ComfyModel(model, clip)
    read, target = seen.text_rows(["cat", " "])
    (one,), (other,) = read[CONTEXT], target[CONTEXT]
    way = one.rows[one.last_content] - other.rows[other.last_content]
    for ratio in (0.2, 0.5, 1.0):
        one = merged(model, erased, 1 - ratio)
        before, after = (ComfyModel(each, clip).text_entries()[CONTEXT].weights for each in (model, one))
        shares = [float((after[n] @ way) @ (w @ way) / (w @ way).norm() ** 2) for n, w in before.items()]
        told = remaining_share(erasures_of(one), read, target)
        assert told == pytest.approx(sum(shares) / len(shares), abs=0.1)
