"""Where text enters small models of every kind that denoisers are, and that editing there is editing the text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from erasure_core.text_layers.find import EntryLayer, Trace, collect_rows, find_entries

WIDTH, TOKENS, INNER = 12, 7, 16


class Attention(nn.Module):
    def __init__(self, width: int, context: int):
        super().__init__()
        self.to_q, self.to_out = nn.Linear(width, width), nn.Linear(width, width)
        self.to_k, self.to_v = nn.Linear(context, width, bias=False), nn.Linear(context, width, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.to_out(F.scaled_dot_product_attention(self.to_q(x), self.to_k(context), self.to_v(context)))


class Denoiser(nn.Module):
    """Latents [1, 4, 6, 6] become tokens, attend to themselves and to what ``read`` makes of the text."""

    def __init__(self, context: int = WIDTH):
        super().__init__()
        self.conv_in, self.conv_out = nn.Conv2d(4, INNER, 3, 2, 1), nn.ConvTranspose2d(INNER, 4, 4, 2, 1)
        self.norm, self.attn1 = nn.LayerNorm(INNER), Attention(INNER, INNER)
        self.attn2 = Attention(INNER, context)

    def read(self, texts: dict) -> tuple[Tensor, Tensor | float]:
        """Rows for the cross-attention, and what is added to the latents' tokens."""
        return texts["context"], 0.0

    def forward(self, x: Tensor, texts: dict) -> Tensor:
        context, shift = self.read(texts)
        h = self.conv_in(x)
        tokens = h.flatten(2).transpose(1, 2) + shift
        tokens = tokens + self.attn1(self.norm(tokens), self.norm(tokens))
        tokens += self.attn2(self.norm(tokens), context)
        return self.conv_out(tokens.transpose(1, 2).reshape(h.shape))


class TextIn(Denoiser):
    def __init__(self):
        super().__init__(INNER)
        self.txt_in = nn.Linear(WIDTH, INNER)

    def read(self, texts):
        return self.txt_in(texts["context"]), 0.0


class Deep(Denoiser):
    def __init__(self):
        super().__init__(INNER)
        self.embed = nn.Sequential(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, INNER))

    def read(self, texts):
        return self.embed(texts["context"]), 0.0


class Normed(Denoiser):
    def __init__(self):
        super().__init__(INNER)
        self.embed = nn.Sequential(nn.RMSNorm(WIDTH), nn.Linear(WIDTH, INNER))
        nn.init.uniform_(self.embed[0].weight, 0.5, 2)

    def read(self, texts):
        return self.embed(texts["context"]), 0.0


class Pooled(Denoiser):
    """The mean of the rows goes a way of its own, as does a pooled vector beside other features."""

    def __init__(self):
        super().__init__()
        self.side, self.label = nn.Linear(WIDTH, INNER), nn.Linear(5 + 10 + 3, INNER)

    def read(self, texts):
        features = torch.cat([torch.ones(1, 5).to(texts["pooled"]), texts["pooled"], texts["pooled"].new_ones(1, 3)], 1)
        return texts["context"], F.silu(self.side(texts["context"].mean(1)) + self.label(features))


class AttentionPooled(Denoiser):
    def __init__(self):
        super().__init__()
        self.query, self.side = nn.Parameter(torch.randn(WIDTH)), nn.Linear(WIDTH, INNER)

    def read(self, texts):
        weights = (texts["context"] @ self.query).softmax(-1)
        return texts["context"], self.side((weights[..., None] * texts["context"]).sum(1))


class Blind(Denoiser):
    def read(self, texts):
        return torch.ones(1, 3, WIDTH).to(texts["context"]), 0.0


class Twice(Denoiser):
    """Two layers read the text, one of them also rows that are not text."""

    def __init__(self):
        super().__init__(INNER)
        self.one, self.two = nn.Linear(WIDTH, INNER), nn.Linear(WIDTH, INNER)
        self.extra = nn.Parameter(torch.randn(1, 2, WIDTH))

    def read(self, texts):
        both = torch.cat([self.extra, texts["context"]], 1)
        return torch.cat([self.one(texts["context"]), self.two(both)], 1), 0.0


class Placed(Denoiser):
    """Positions are added before the layer: its rows are functions of the text's, but no multiples."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.randn(TOKENS, WIDTH))

    def read(self, texts):
        return texts["context"] + self.places, 0.0


class Modulated(Denoiser):
    """Text is scaled by what latents say, then normalised."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(1, WIDTH)

    def read(self, texts):
        return F.layer_norm(texts["context"] + self.scale(texts["context"].new_ones(1, 1)), (WIDTH,)), 0.0


class Bare(Denoiser):
    """The text also reaches the output past every layer."""

    def forward(self, x, texts):
        return super().forward(x, texts) + texts["context"].mean()


class Sum(Denoiser):
    def read(self, texts):
        return texts["context"] + texts["second"], 0.0


def texts(dtype: torch.dtype = torch.float32, seed: int = 0, **shapes: tuple) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"context": (1, TOKENS, WIDTH)} | shapes
    return {name: torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for name, shape in shapes.items()}


def runner(model: nn.Module, dtype: torch.dtype = torch.float32):
    latents = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(9)).to(dtype)
    return lambda given: model(latents, dict(given))


def made(kind: type[Denoiser], dtype: torch.dtype = torch.float32) -> Denoiser:
    torch.manual_seed(0)
    return kind().to(dtype).eval()


def trace(kind: type[Denoiser], dtype: torch.dtype = torch.float32, **shapes: tuple) -> Trace:
    model = made(kind, dtype)
    return find_entries(dict(model.named_modules()), runner(model, dtype), texts(dtype, **shapes))


def named(found: Trace) -> dict[str, EntryLayer]:
    assert len({entry.name for entry in found.entries}) == len(found.entries)
    return {entry.name: entry for entry in found.entries}


DTYPES = [torch.float32, torch.float16, torch.bfloat16]
CASES = [
    (Denoiser, {"attn2.to_k": "text", "attn2.to_v": "text"}),
    (TextIn, {"txt_in": "text"}),
    (Deep, {"embed.0": "text"}),
    (Normed, {"embed.1": "rows"}),
    (Twice, {"one": "text", "two": "text"}),
    (Placed, {"attn2.to_k": "rows", "attn2.to_v": "rows"}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "expected"), CASES)
def test_entries_are_found(kind, expected, dtype):
    found = trace(kind, dtype)
    assert {name: entry.kind for name, entry in named(found).items()} == expected
    assert found.complete and not found.unread
    assert all(entry.aligned and entry.columns == (0, WIDTH) for entry in found.entries)


def test_layers_that_read_the_same_rows_are_one_group():
    assert {entry.group for entry in trace(Denoiser).entries} == {"attn2.to_k"}
    assert {entry.group for entry in trace(Placed).entries} == {"attn2.to_k"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_mean_and_a_block_of_columns(dtype):
    entries = named(trace(Pooled, dtype, pooled=(1, 10)))
    assert set(entries) == {"attn2.to_k", "attn2.to_v", "side", "label"}
    side, label = entries["side"], entries["label"]
    assert (side.kind, side.text, side.aligned, side.group) == ("text", "context", False, "side")
    assert (label.kind, label.text, label.columns, label.width) == ("text", "pooled", (5, 15), 18)
    assert label.aligned and not label.shared


def test_rows_of_others_are_seen():
    entries = named(trace(Twice))
    assert entries["two"].shared and not entries["one"].shared


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_pooling_is_a_leak(dtype):
    found = trace(AttentionPooled, dtype)
    assert set(named(found)) == {"attn2.to_k", "attn2.to_v"}
    assert not found.complete
    assert [(leak.name, leak.text) for leak in found.leaks] == [("side", "context")]
    assert "mixed" in found.leaks[0].reason


def test_what_depends_on_more_than_the_text_is_a_leak():
    found = trace(Modulated)
    assert not found.entries
    assert {leak.name for leak in found.leaks} == {"attn2.to_k", "attn2.to_v"}
    assert all("something else" in leak.reason for leak in found.leaks)


def test_what_latents_change_is_told_by_a_run_elsewhere():
    class Latent(Denoiser):
        def forward(self, x, texts):
            return super().forward(x, {"context": F.layer_norm(texts["context"] + x.mean(), (WIDTH,)) + x.mean()})

    model = made(Latent)
    elsewhere = lambda given: model(torch.ones(1, 4, 6, 6), dict(given))  # noqa: E731
    modules = dict(model.named_modules())
    assert find_entries(modules, runner(model), texts()).complete
    assert not find_entries(modules, runner(model), texts(), elsewhere).complete


def test_the_output_itself_is_a_leak():
    found = trace(Bare)
    assert set(named(found)) == {"attn2.to_k", "attn2.to_v"}
    assert [leak.name for leak in found.leaks] == ["output"]


def test_a_sum_of_texts_is_a_leak():
    found = trace(Sum, second=(1, TOKENS, WIDTH))
    assert not found.entries and {leak.text for leak in found.leaks} == {"context", "second"}
    assert "'context' and 'second'" in found.leaks[0].reason


def test_a_model_that_ignores_text():
    found = trace(Blind, pooled=(1, 10))
    assert not found.entries and not found.leaks
    assert found.unread == ("context", "pooled")


def test_a_convolution_that_reads_text_is_a_leak():
    class Convolved(Denoiser):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)

        def read(self, texts):
            return self.conv(texts["context"].transpose(1, 2)).transpose(1, 2), 0.0

    assert [(leak.name, leak.reason) for leak in trace(Convolved).leaks] == [("conv", "it is a convolution")]


def test_causal_mixing_is_not_row_wise():
    class Causal(Denoiser):
        def read(self, texts):
            context = texts["context"]
            return F.scaled_dot_product_attention(context, context, context, is_causal=True), 0.0

    assert {leak.name for leak in trace(Causal).leaks} == {"attn2.to_k", "attn2.to_v"}


def test_masked_rows_and_repeated_calls():
    class Masked(TextIn):
        """Every other row is a learned padding; the layer embeds two copies, and the latents' mean."""

        def __init__(self):
            super().__init__()
            self.padding = nn.Parameter(torch.randn(WIDTH))

        def read(self, texts):
            mask = torch.arange(TOKENS)[:, None] % 2 == 0
            context = torch.where(mask, texts["context"], self.padding)
            return torch.cat([self.txt_in(context), self.txt_in(context), self.txt_in(self.padding)[None, None]], 1), 0

    entry = named(trace(Masked))["txt_in"]
    assert (entry.kind, entry.aligned, entry.shared, entry.calls) == ("text", False, True, 3)


class Again(TextIn):
    """The layer is called once for the text, and once for rows that are no text."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Parameter(torch.randn(1, 3, WIDTH))

    def read(self, texts):
        return torch.cat([self.txt_in(self.extra), self.txt_in(texts["context"])], 1), 0.0


class Padded(TextIn):
    """The layer is called once, and some of its rows are no text."""

    def __init__(self):
        super().__init__()
        self.padding = nn.Parameter(torch.randn(WIDTH))

    def read(self, texts):
        kept = torch.arange(texts["context"].shape[1])[:, None] < 5
        return self.txt_in(torch.where(kept, texts["context"], self.padding)), 0.0


@pytest.mark.parametrize(
    ("kind", "calls", "aligned", "rows"),
    [(TextIn, 1, True, slice(None)), (Again, 2, True, slice(None)), (Padded, 1, False, slice(5))],
)
def test_a_layer_that_reads_more_than_the_text_is_shared(kind, calls, aligned, rows):
    """By another call or by other rows; what is collected of it is the text alone."""
    model, given = made(kind), texts()
    modules, run = dict(model.named_modules()), runner(model)
    (entry,) = find_entries(modules, run, given).entries
    assert (entry.shared, entry.calls, entry.aligned) == (kind is not TextIn, calls, aligned)
    found = collect_rows(modules, run, [entry], given)
    assert torch.equal(found["txt_in"], given["context"][0, rows])


def test_a_layer_is_aligned_if_every_call_of_it_is():
    class Halves(TextIn):
        def read(self, texts):
            return torch.cat([self.txt_in(texts["context"]), self.txt_in(texts["context"][:, :4])], 1), 0.0

    entry = named(trace(Halves))["txt_in"]
    assert (entry.aligned, entry.shared, entry.calls) == (False, False, 2)


def test_numbers_that_are_not_finite_are_said():
    class Broken(Denoiser):
        def read(self, texts):
            return texts["context"], torch.tensor(float("nan"))

    found = trace(Broken)
    assert not found.complete and "not finite" in found.leaks[0].reason


def test_a_model_of_chance_is_refused():
    class Random(Denoiser):
        def read(self, texts):
            return texts["context"], torch.rand(1)

    with pytest.raises(ValueError, match=r"two equal runs differ in what attn1.to_q reads"):
        trace(Random)


def test_a_model_that_the_text_steers_is_refused():
    class Steered(Deep):
        def read(self, texts):
            first = texts["context"][0, 0, 0]
            return self.embed(texts["context"]) if first == self.seen else self.embed[0](texts["context"]), 0.0

    model = made(Steered)
    model.seen = None
    original = model.read

    def remember(given):
        model.seen = given["context"][0, 0, 0].clone() if model.seen is None else model.seen
        return original(given)

    model.read = remember
    with pytest.raises(ValueError, match=r"the text decides whether embed.2 is called"):
        find_entries(dict(model.named_modules()), runner(model), texts())


def edited(model: nn.Module, found: EntryLayer, change: Tensor) -> None:
    weight = model.get_submodule(found.name).weight.data
    weight[:, slice(*found.columns)] = weight[:, slice(*found.columns)] @ change


@pytest.mark.parametrize(("kind", "shapes"), [(kind, {}) for kind, _ in CASES[:3]] + [(Pooled, {"pooled": (1, 10)})])
def test_editing_the_entries_is_editing_the_text(kind, shapes):
    dtype = torch.float64
    model = made(kind, dtype)
    run, given = runner(model, dtype), texts(dtype, **shapes)
    maps = {name: torch.randn(text.shape[-1], text.shape[-1], dtype=dtype) for name, text in given.items()}
    with torch.no_grad():
        expected = run({name: text @ maps[name].T for name, text in given.items()})
        before = run(given)
        for entry in find_entries(dict(model.named_modules()), run, given).entries:
            edited(model, entry, maps[entry.text])
        torch.testing.assert_close(run(given), expected)
    assert not torch.allclose(before, expected)


def test_a_map_of_the_rows_that_a_layer_sees_replaces_one_text_by_another():
    """W A gives for the rows of one text what W gave for those of another: then the outputs are equal."""
    dtype = torch.float64
    model = made(Normed, dtype)
    modules, run = dict(model.named_modules()), runner(model, dtype)
    concept, target = texts(dtype), texts(dtype, seed=1)
    found = find_entries(modules, run, concept)
    seen, wanted = (collect_rows(modules, run, found.entries, given)["embed.1"].double() for given in (concept, target))
    with torch.no_grad():
        expected = run(target)
        edited(model, found.entries[0], torch.linalg.lstsq(seen, wanted).solution.T)
        torch.testing.assert_close(run(concept), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Normed, {"embed.1": lambda model, given: model.embed[0](given["context"])[0]}),
        (Twice, {name: lambda _, given: given["context"][0] for name in ("one", "two")}),
        (Pooled, {"side": lambda _, given: given["context"].mean(1), "label": lambda _, given: given["pooled"]}),
    ],
)
def test_rows_are_collected_as_the_layer_reads_them(kind, expected):
    model, given = made(kind), texts(pooled=(1, 10))
    modules, run = dict(model.named_modules()), runner(model)
    entries = find_entries(modules, run, given).entries
    longer = given | {"context": torch.randn(1, 11, WIDTH)}
    rows = collect_rows(modules, run, entries, longer)
    assert set(rows) == {entry.name for entry in entries}
    for name, way in expected.items():
        torch.testing.assert_close(rows[name], way(model, longer))


def test_collecting_stops_when_all_is_seen():
    class Costly(TextIn):
        def forward(self, x, texts):
            context, _ = self.read(texts)
            reached.append(context)
            return x

    reached = []
    model = made(Costly)
    modules, run = dict(model.named_modules()), runner(model)
    entries = find_entries(modules, run, texts()).entries
    reached.clear()
    collect_rows(modules, run, entries, texts())
    assert not reached


def test_the_model_is_left_as_it_was():
    model = made(TextIn)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    own = model.txt_in.forward
    model.conv_in.forward = own_conv = model.conv_in.forward  # an instance's own, as peft and accelerate leave it
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]

    def failing(given):
        model(torch.ones(1, 4, 6, 6), dict(given))
        raise RuntimeError("in the middle")

    find_entries(dict(model.named_modules()), runner(model), texts())
    with pytest.raises(RuntimeError, match="in the middle"):
        find_entries(dict(model.named_modules()), failing, texts())
    assert model.conv_in.__dict__["forward"] is own_conv
    assert "forward" not in model.txt_in.__dict__ and model.txt_in.forward == own
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_weights_are_not_touched():
    """Linear and convolution weights may be anywhere and of any type, texts and latents inference tensors."""
    with torch.inference_mode():
        model = made(Pooled)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.to("meta")
        found = find_entries(dict(model.named_modules()), runner(model), texts(pooled=(1, 10)))
    assert found.complete and len(found.entries) == 4


def test_a_text_that_the_model_changes_in_place():
    class Rude(Denoiser):
        def read(self, texts):
            texts["context"].mul_(2)
            return texts["context"], 0.0

    assert set(named(trace(Rude))) == {"attn2.to_k", "attn2.to_v"}
    given = texts()
    before = given["context"].clone()
    model = made(Rude)
    modules, run = dict(model.named_modules()), runner(model)
    collect_rows(modules, run, find_entries(modules, run, given).entries, given)
    assert torch.equal(given["context"], before)
