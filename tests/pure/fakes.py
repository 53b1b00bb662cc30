"""A ``DiffusionModel`` of a few thousand numbers, and strategies for the closed form."""

from __future__ import annotations

import copy
import functools
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from hypothesis import strategies as st
from torch import Tensor

from erasure_core import Conditioning
from erasure_core.model import CONTEXT, POOLED, EncodedPrompts, TextEntry, TextRows

LAYERS = {
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": 12,
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight": 12,
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": 20,
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight": 20,
}


def text_layers(width: int, tower: str = "text_encoder") -> dict[str, tuple[int, ...]]:
    parts = {"self_attn.q_proj.weight": (width, width), "mlp.fc1.weight": (width, width), "mlp.fc1.bias": (width,)}
    layers = range(2)
    return {f"{tower}.text_model.encoder.layers.{i}.{name}": shape for i in layers for name, shape in parts.items()}


def text_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The same for every seed: models share their text encoders."""
    shared = torch.Generator().manual_seed(77)
    return {name: torch.randn(*shape, generator=shared) / 20 for name, shape in shapes.items()}


vocabulary: dict[str, int] = {}  # ids of the words that were seen


@functools.cache
def embedding(word: str, width: int) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))


class FakeModel:
    """Words have fixed embeddings that later tokens remember; the "UNet" pulls latents towards what is attended to."""

    def __init__(self, seed: int = 0, width: int = 24, tokens: int = 8, prediction_type: str = "epsilon"):
        generator = torch.Generator().manual_seed(seed)
        self.weights = {name: torch.randn(out, width, generator=generator) for name, out in LAYERS.items()}
        self.text = text_weights(text_layers(width))
        self.device = torch.device("cpu")
        self.erasures: tuple = ()
        self.context_dim, self.tokens, self.prediction_type = width, tokens, prediction_type
        self.free: int | None = None
        self.cased = False  # whether it tells capitals apart, as T5 does
        self.alphas_cumprod = torch.linspace(0.999, 0.01, 100, dtype=torch.float64)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        return self.encoded(prompts).conditioning

    def encoded(self, prompts: Sequence[str]) -> EncodedPrompts:
        rows = [self._words_that_fit(prompt) for prompt in prompts]
        return EncodedPrompts(self._conditioning(rows), tuple(len(words) for words in rows))

    def _conditioning(self, prompts: Sequence[Sequence[str]]) -> Conditioning:
        return Conditioning(torch.stack([self._context(words) for words in prompts]))

    def _words(self, prompt: str) -> list[str]:
        return (prompt if self.cased else prompt.casefold()).split()

    def reads(self, prompt: str) -> tuple[str, ...]:
        return tuple(self._words_that_fit(prompt))

    def _words_that_fit(self, prompt: str) -> list[str]:
        words = self._words(prompt)
        if len(words) > self.tokens - 2:
            raise ValueError(f"'{prompt}' is longer than {self.tokens - 2} words")
        return words

    def tokenize(self, prompt: str) -> list[int]:
        self.encode_prompts([prompt])
        words = ["<start>", *self._words(prompt)]
        padded = words + ["<end>"] * (self.tokens - len(words))
        return [vocabulary.setdefault(word, len(vocabulary)) for word in padded]

    def text_of(self, ids: Sequence[int]) -> str:
        words = list(vocabulary)
        return " ".join(words[one] for one in ids if words[one] not in ("<start>", "<end>"))

    def encode_tokens(self, ids: Tensor) -> Conditioning:
        return self.encode_prompts([self.text_of(row) for row in ids.tolist()])

    def _context(self, words: Sequence[str]) -> Tensor:
        return self._states(words, "text_encoder", slice(self.context_dim))

    def _states(self, words: Sequence[str], tower: str, columns: slice) -> Tensor:
        """What a text encoder makes of those columns of the embeddings."""
        padded = ["<start>", *words] + ["<end>"] * (self.tokens - 1 - len(words))
        heard = torch.stack([self._embedding(word)[columns] for word in padded]).cumsum(0)
        places = torch.stack([self._embedding(f"<{place}>")[columns] for place in range(self.tokens)])
        states = torch.tanh(heard / 2 + places / 4)
        for layer in range(2):
            part = f"{tower}.text_model.encoder.layers.{layer}"
            states = states + states @ self.text[f"{part}.self_attn.q_proj.weight"].T
            states = states + states @ self.text[f"{part}.mlp.fc1.weight"].T + self.text[f"{part}.mlp.fc1.bias"]
        return states

    def _embedding(self, word: str) -> Tensor:
        return embedding(word, self.context_dim)

    def text_entries(self) -> Mapping[str, TextEntry]:
        return {CONTEXT: TextEntry(dict(self.weights))} if self.weights else {}

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        return self.encoded(prompts).rows()

    def weights_of(self, scope: str) -> Mapping[str, Tensor]:
        if scope not in ("cross-attention", "attention", "unet", "text_encoder"):
            raise ValueError(f"weights are of cross-attention, attention, unet or text_encoder, not '{scope}'")
        return dict(self.text if scope == "text_encoder" else self.weights)

    def with_weights(self, weights: Mapping[str, Tensor]) -> FakeModel:
        view = copy.copy(self)
        view.weights = {name: weights.get(name, weight) for name, weight in self.weights.items()}
        view.text = {name: weights.get(name, weight) for name, weight in self.text.items()}
        return view

    def predict_noise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        keys = [conditioning.context @ weight.T for weight in self.weights.values()]
        pull = torch.stack([key.mean((1, 2)) for key in keys]).sum(0)
        return 0.5 * latents + 0.1 * pull[:, None, None, None] + timesteps[:, None, None, None] / 1000

    def encode_images(self, images: Tensor) -> Tensor:
        return torch.cat([images, images[:, :1]], 1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents[:, :3].sigmoid()

    def latent_shape(self) -> tuple[int, int, int]:
        return 4, 4, 4

    def free_memory(self) -> int | None:
        return self.free

    @contextmanager
    def patched(self, deltas: Mapping[str, Tensor]) -> Iterator[None]:
        unknown = set(deltas) - set(self.weights)
        if unknown:
            raise ValueError(f"the model has no weight {sorted(unknown)[0]}")
        originals = self.weights
        self.weights = {name: weight + deltas.get(name, 0) for name, weight in originals.items()}
        try:
            yield
        finally:
            self.weights = originals


class TwoTowers(FakeModel):
    """As SDXL: two text encoders side by side, of which the second also gives a pooled vector that a layer reads."""

    LABEL = "unet.add_embedding.linear_1.weight"
    POOLED_WIDTH, SIZES = 10, 4

    def __init__(self, seed: int = 0, **settings):
        super().__init__(seed, **settings)
        label = torch.randn(14, self.POOLED_WIDTH + self.SIZES, generator=torch.Generator().manual_seed(seed + 1))
        self.weights[self.LABEL] = label
        half = self.context_dim // 2
        self.text = text_weights(text_layers(half) | text_layers(half, "text_encoder_2"))

    def _conditioning(self, prompts: Sequence[Sequence[str]]) -> Conditioning:
        half, contexts, pooled = self.context_dim // 2, [], []
        for words in prompts:
            first = self._states(words, "text_encoder", slice(half))
            second = self._states(words, "text_encoder_2", slice(half, self.context_dim))
            contexts.append(torch.cat([first, second], 1))
            pooled.append(second[1 + len(words)][: self.POOLED_WIDTH])
        return Conditioning(torch.stack(contexts), torch.stack(pooled))

    def text_entries(self) -> Mapping[str, TextEntry]:
        cross = {name: weight for name, weight in self.weights.items() if name != self.LABEL}
        label = TextEntry({self.LABEL: self.weights[self.LABEL]}, columns=(0, self.POOLED_WIDTH))
        return {CONTEXT: TextEntry(cross), POOLED: label}

    def predict_noise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        cross = [weight for name, weight in self.weights.items() if name != self.LABEL]
        pull = torch.stack([(conditioning.context @ weight.T).mean((1, 2)) for weight in cross]).sum(0)
        label = torch.cat([conditioning.pooled, torch.ones(len(latents), self.SIZES)], 1)
        pull = pull + (label @ self.weights[self.LABEL].T).mean(1)
        return 0.5 * latents + 0.1 * pull[:, None, None, None] + timesteps[:, None, None, None] / 1000


class Ragged(FakeModel):
    """As SD3 and its like: layers read the rows of two encoders one after the other; the second gives no padding."""

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        encoded = self.encoded(prompts)
        each = zip(encoded.conditioning.context, encoded.last_content, strict=True)
        return [{CONTEXT: (TextRows(rows, last), TextRows(rows[: last + 2].flip(1), last))} for rows, last in each]


class Uneven(FakeModel):
    """Every layer pulls the latents in a pattern of its own, so that gradients differ by layer and by latents."""

    def predict_noise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        draws = torch.Generator().manual_seed(1)
        found = 0.5 * latents + timesteps[:, None, None, None] / 1000
        for weight in self.weights.values():
            pattern = torch.randn(latents.shape[1:], generator=draws) * (1 + latents.tanh() / 2)
            found = found + 0.3 * (conditioning.context @ weight.T).sin().mean((1, 2))[:, None, None, None] * pattern
        return found


class Adam:
    """Written out (arXiv 1412.6980); with a ``decay`` it is AdamW (arXiv 1711.05101)."""

    def __init__(self, rate: float, first: float = 0.9, second: float = 0.999, *, decay: float = 0.0):
        self.rate, self.betas, self.decay, self.steps, self.moments = rate, (first, second), decay, 0, {}

    def step(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The new weights."""
        (first, second), self.steps, new = self.betas, self.steps + 1, {}
        for name, gradient in gradients.items():
            m, v = self.moments.get(name, (0, 0))
            m, v = first * m + (1 - first) * gradient, second * v + (1 - second) * gradient**2
            self.moments[name] = m, v
            m, v = m / (1 - first**self.steps), v / (1 - second**self.steps)
            kept = (1 - self.rate * self.decay) * weights[name]
            new[name] = (kept - self.rate * m / (v.sqrt() + 1e-8)).detach()
        return new


def digest(weights: Mapping[str, Tensor]) -> str:
    """A hash of every bit of the weights."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode() + weights[name].numpy().tobytes())
    return found.hexdigest()


@st.composite
def systems(draw) -> dict:
    """Contexts and coefficients for ``edit_map``: ``concepts``, ``targets``, ``preserved`` and ``scales``."""
    width = draw(st.integers(3, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))

    def rows(count: int) -> Tensor:
        return torch.randn(count, width, generator=generator, dtype=torch.float64)

    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    coefficient = st.floats(0.01, 10)
    return {
        "concepts": [rows(count) for count in counts],
        "targets": [rows(count) for count in counts],
        "preserved": [rows(count) for count in draw(st.lists(st.integers(1, 4), max_size=3))],
        "scales": {name: draw(coefficient) for name in ("erase_scale", "preserve_scale", "ridge")},
        "weights": [rows(out) for out in draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))],
    }
