"""``Conditioning``: what is done to the context is done to the pooled vector too, where there is one."""

from __future__ import annotations

import pytest
import torch

from erasure_core import Conditioning

CONTEXT, POOLED = torch.arange(24.0).reshape(3, 4, 2), torch.arange(9.0).reshape(3, 3)
PLAIN, BOTH = Conditioning(CONTEXT), Conditioning(CONTEXT, POOLED)
each = pytest.mark.parametrize("text", [PLAIN, BOTH])


@each
def test_prompts_are_picked_split_and_joined_again(text: Conditioning) -> None:
    which = torch.tensor([2, 0, 0])
    picked = text[which]
    assert len(text) == len(picked) == 3
    for one, whole in zip(picked.tensors, text.tensors, strict=True):
        assert torch.equal(one, whole[which])
    for sizes, lengths in ((1, [1, 1, 1]), ([1, 0, 2], [1, 0, 2])):
        parts = text.split(sizes)
        assert [len(part) for part in parts] == lengths
        for one, whole in zip(Conditioning.cat(parts).tensors, text.tensors, strict=True):
            assert torch.equal(one, whole)


@each
def test_a_single_prompt_is_repeated_without_copies(text: Conditioning) -> None:
    for one, whole in zip(text[1:2].expand(5).tensors, text.tensors, strict=True):
        assert len(one) == 5 and torch.equal(one[4], whole[1]) and one.data_ptr() == whole[1].data_ptr()


@each
def test_every_tensor_is_moved_copied_and_cut_from_its_graph(text: Conditioning) -> None:
    leaf = text.clone().requires_grad_()
    assert all(one.requires_grad for one in leaf.tensors) and not any(one.requires_grad for one in text.tensors)
    assert not any(one.requires_grad for one in leaf.detach().tensors)
    assert {one.dtype for one in text.to("cpu", torch.float64).tensors} == {torch.float64}


@each
def test_the_gradient_of_the_inner_product_is_the_other_bit_for_bit(text: Conditioning) -> None:
    leaf, other = text.clone().requires_grad_(), Conditioning(*(torch.rand_like(one) for one in text.tensors))
    for found, expected in zip(torch.autograd.grad(-leaf.inner(other), leaf.tensors), other.tensors, strict=True):
        assert torch.equal(found, -expected)


def test_a_pooled_vector_that_needs_no_gradient_is_no_obstacle() -> None:
    leaf = CONTEXT.clone().requires_grad_()
    (found,) = torch.autograd.grad(Conditioning(leaf, POOLED).inner(BOTH), [leaf])
    assert torch.equal(found, CONTEXT)


def test_what_has_a_pooled_vector_is_not_joined_with_what_has_none() -> None:
    with pytest.raises(ValueError, match="zip"):
        Conditioning.cat([PLAIN, BOTH])
