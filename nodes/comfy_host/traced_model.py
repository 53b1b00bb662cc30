"""A MODEL of any family for closed forms: the layers that read text are found by tracing ComfyUI's own calls."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...erasure_core import UnsupportedModelError
from ...erasure_core.model import TextEntry, TextRows
from ...erasure_core.text_layers.find import LINEAR, EntryLayer, Run, Trace, collect_rows, find_entries
from ...erasure_core.text_layers.token_rows import Token, encoders_of, last_content, split_rows, suffix_length
from .erasures_of_model import erasures_of
from .model import UNET, merged_weights
from .text_encoders import ENCODERS, check_fits, identity, tokenized

log = logging.getLogger(__name__)
ONE_TOKEN_PROMPT = "a"  # to see how prompts become rows
ROWS = 8  # of text, enough to see what a layer does with them
SIDES = (8, 48)  # latents' height and width
OTHER_TEXTS = "conditioning_"  # how ComfyUI names what a conditioning holds of further text encoders


class TracedText:
    """The text entries of a MODEL, whatever its family, and what they read of a prompt that CLIP encodes.

    Both are only read. Raises ``UnsupportedModelError`` when no linear layer reads the text, or when it cannot be
    told which rows are a prompt's.
    """

    def __init__(self, model, clip):
        self.model, self.clip, self.erasures = model, clip, erasures_of(model)
        tokens, conditioning = self._encode(ONE_TOKEN_PROMPT)
        self.trace = trace(model, conditioning)
        if not self.trace.entries:
            reasons = "; ".join(f"{leak.name} of '{leak.text}': {leak.reason}" for leak in self.trace.leaks)
            raise UnsupportedModelError(
                f"MODEL is of the kind {type(model.model).__name__}, where no linear layer reads the text"
                + (f" ({reasons})" if reasons else "")
            )
        self._groups = _grouped(self.trace.entries)
        empty, _ = self._encode("")
        self._suffixes = {name: suffix_length(empty[name], row) for name, row in tokens.items()}
        self._encoders = {}
        for name, text in texts_of(conditioning).items():
            if text.ndim > 2 and name in {entry.text for entry in self.trace.entries}:
                lengths = {
                    one: len(row) for one, row in tokens.items() if one in _encoders_of_text(name, tokens, conditioning)
                }
                self._encoders[name] = _matched(encoders_of, text.shape[-2], lengths, {"clip"})
        for leak in self.trace.leaks:
            log.warning("%s also reaches %s, which is not edited: %s.", leak.text, leak.name, leak.reason)

    def reads(self, prompt: str) -> Hashable:
        """Return the tokens that each encoder reads of a prompt: equal for prompts that they cannot tell apart."""
        windows = self._present(self._tokens(prompt))
        return tuple((name, tuple(identity(token[0]) for row in rows for token in row)) for name, rows in windows)

    def text_entries(self) -> Mapping[str, TextEntry]:
        """Return where text enters, by the text's name.

        Where one map cannot edit all layers that read a text, the name of the first layer of each map follows.
        """
        entries = {}
        for name, group in self._groups.items():
            keys = {f"unet.{one.name}.weight": f"{UNET}{one.name}.weight" for one in group}
            columns = group[0].columns
            whole = columns == (0, group[0].width)
            entries[name] = TextEntry(merged_weights(self.model, keys), None if whole else columns)
        return entries

    def text_rows(self, prompts: Sequence[str]) -> list[Mapping[str, tuple[TextRows, ...]]]:
        """Return for each prompt the rows that the layers of each text entry read, by the entry's name."""
        rows: list[Mapping[str, tuple[TextRows, ...]]] = []
        for prompt in prompts:
            comfy.model_management.throw_exception_if_processing_interrupted()
            tokens, conditioning = self._encode(prompt)
            rows.append({name: self._rows(group, tokens, conditioning) for name, group in self._groups.items()})
        return rows

    def _rows(self, group: Sequence[EntryLayer], tokens: Mapping[str, list[Token]], conditioning: list):
        texts = texts_of(conditioning)
        text = texts[group[0].text]
        if group[0].kind == LINEAR and text.ndim < 4:
            matrices = [text.reshape(-1, text.shape[-1]).to("cpu", torch.float32)]
        else:
            firsts = [entry for entry in group if entry.name == entry.group]
            modules = dict(self.model.model.diffusion_model.named_modules())
            matrices = list(collect_rows(modules, runner(self.model, conditioning), firsts, texts).values())
        return tuple(part for rows in matrices for part in self._parts(group[0], rows.cpu(), tokens))

    def _parts(self, entry: EntryLayer, rows: Tensor, tokens: Mapping[str, list[Token]]) -> list[TextRows]:
        """Return the rows of each encoder."""
        if entry.text not in self._encoders:
            return [TextRows(rows, len(rows) - 1)]
        lengths = {name: len(tokens[name]) for name in self._encoders[entry.text]}
        parts = []
        for name, where, cut in _matched(split_rows, len(rows), lengths):
            parts.append(TextRows(rows[where], last_content(tokens[name], self._suffixes[name], cut)))
        return parts

    def _encode(self, prompt: str) -> tuple[dict[str, list[Token]], list]:
        """Return a prompt's tokens by encoder, and its CONDITIONING as "CLIP Text Encode" makes it."""
        windows = self._tokens(prompt)
        weighted = {name: [[token[:2] for token in row] for row in rows] for name, rows in windows.items()}
        return self._by_encoder(prompt, windows), self.clip.encode_from_tokens_scheduled(weighted)

    def _tokens(self, prompt: str) -> Mapping[str, list[list[tuple]]]:
        return tokenized(self.clip, prompt, return_word_ids=True)

    def _by_encoder(self, prompt: str, windows: Mapping[str, list[list[tuple]]]) -> dict[str, list[Token]]:
        """Return the tokens of those encoders that are there; CLIP L and G, whose rows lie side by side, are one."""
        by_encoder: dict[str, list[Token]] = {}
        for name, rows in self._present(windows):
            if name in ENCODERS:
                check_fits(prompt, rows)
            row_tokens = [(_hashable(token[0]), bool(token[2])) for row in rows for token in row]
            by_encoder.setdefault("clip" if name in ENCODERS else name, row_tokens)
        return by_encoder

    def _present(self, windows: Mapping[str, list[list[tuple]]]) -> list[tuple[str, list[list[tuple]]]]:
        """Return the windows of those encoders that are there, by their names."""
        stage = self.clip.cond_stage_model
        missing = {name for name in windows for place in (name, f"clip_{name}") if getattr(stage, place, stage) is None}
        return [(name, rows) for name, rows in windows.items() if name not in missing]


def _hashable(token) -> object:
    """Return a token's number; embeddings of textual inversion are all alike."""
    return token if isinstance(token, int) else "embedding"


def _encoders_of_text(text: str, encoders: Iterable[str], conditioning: list) -> set[str]:
    """Return the encoders that a text may be of: those that its name says, as ``conditioning_llama3`` does."""
    by_text = {
        one: {name for name in encoders if name in one} for one in conditioning[0][1] if one.startswith(OTHER_TEXTS)
    }
    return by_text[text] if text in by_text else set(encoders).difference(*by_text.values())


def _matched(function, *arguments):
    try:
        return function(*arguments)
    except ValueError as error:
        raise UnsupportedModelError(f"CLIP gives rows that cannot be matched with its tokens: {error}") from error


def _grouped(entries: Sequence[EntryLayer]) -> dict[str, list[EntryLayer]]:
    """Return the layers in groups that one map edits, by name: they read a text itself, or one function of it.

    Raises ``UnsupportedModelError`` for a layer that reads rows which are not those of tokens.
    """
    groups: dict[tuple, list[EntryLayer]] = {}
    for entry in entries:
        if entry.kind != LINEAR and not entry.aligned:
            raise UnsupportedModelError(
                f"{entry.name} reads rows that are functions of '{entry.text}' but not as many as its tokens"
            )
        whole = entry.columns == (0, entry.width)
        key = (entry.text, None if whole else entry.columns, entry.kind == LINEAR or entry.group)
        groups.setdefault(key, []).append(entry)
    counts = Counter(text for text, *_ in groups)
    return {text if counts[text] == 1 else f"{text} of {group[0].name}": group for (text, *_), group in groups.items()}


def texts_of(conditioning: list) -> dict[str, Tensor]:
    """Return the texts in a CONDITIONING: ``context``, ``pooled``, and those of further encoders by ComfyUI's names."""
    context, options = conditioning[0]
    texts = {"context": context, "pooled": options.get("pooled_output")}
    texts |= {name: value for name, value in options.items() if name.startswith(OTHER_TEXTS)}
    return {name: value for name, value in texts.items() if torch.is_tensor(value) and value.is_floating_point()}


def runner(model, conditioning: list, *, seed: int = 0, side: int = SIDES[0]) -> Run:
    """Return a function that calls the denoiser of a MODEL with other texts in place of those of a CONDITIONING.

    Everything else is as in the CONDITIONING. Latents are noise of ``seed``, which also decides the timestep: 0, the
    default, one early in sampling, and 1 a later one. ``side`` is the height and width of the latents; a small one, the
    default, is enough to see where text enters, and quick.
    """
    inner, device = model.model, model.current_loaded_device()
    noise = torch.randn(_latent_shape(inner, side), generator=torch.Generator().manual_seed(seed)).to(device)
    sampling = inner.model_sampling
    sigma = torch.tensor([float(sampling.percent_to_sigma(0.3 + 0.4 * (seed % 2)))], device=device)

    def run(texts: Mapping[str, Tensor]) -> Tensor:
        context, options = conditioning[0]
        options = options | {name: text for name, text in texts.items() if name.startswith(OTHER_TEXTS)}
        if "pooled" in texts:
            options["pooled_output"] = texts["pooled"]
        conds = comfy.sampler_helpers.convert_cond([[texts.get("context", context), options]])
        conds = comfy.samplers.encode_model_conds(
            inner.extra_conds, conds, noise, device, "positive", latent_image=torch.zeros_like(noise), seed=0
        )
        inputs = conds[0]["model_conds"].items()
        inputs = {name: value.process_cond(batch_size=1, area=None).cond for name, value in inputs}
        steps = torch.cat([sigma, torch.zeros_like(sigma)])
        options = {"sigmas": sigma, "sample_sigmas": steps, "cond_or_uncond": [0]}
        return inner.apply_model(noise, sigma, transformer_options=options, **inputs)

    return run


def trace(model, conditioning: list) -> Trace:
    """Return the layers of a MODEL where the texts of a CONDITIONING enter, named as in its denoiser.

    The denoiser is called first with a few rows of text and a tiny picture, which is quick. Families that refuse these
    get all rows (HunyuanDiT counts them), then a larger picture (PixArt rounds a small one's size to zero).
    """
    for text, side in ((shortened(conditioning), SIDES[0]), (conditioning, SIDES[0])):
        with suppress(RuntimeError, ZeroDivisionError):
            return _trace(model, text, side)
    return _trace(model, conditioning, SIDES[1])


def shortened(conditioning: list) -> list:
    """Return a CONDITIONING with the first ``ROWS`` rows only of its texts and of their masks."""
    context, options = conditioning[0]
    short_options = {}
    for name, value in options.items():
        if torch.is_tensor(value) and name.startswith(OTHER_TEXTS) and value.is_floating_point():
            short_options[name] = value[..., :ROWS, :]
        elif torch.is_tensor(value) and name.startswith("attention_mask"):
            short_options[name] = value[..., :ROWS]
    return [[context[..., :ROWS, :], options | short_options]]


def _trace(model, conditioning: list, side: int) -> Trace:
    modules = dict(model.model.diffusion_model.named_modules())
    run, elsewhere = (runner(model, conditioning, seed=seed, side=side) for seed in (0, 1))
    return find_entries(modules, run, texts_of(conditioning), elsewhere)


def _latent_shape(inner, side: int) -> tuple[int, ...]:
    latents = inner.latent_format
    dimensions = latents.latent_dimensions
    sizes = {1: (side * side,), 2: (side, side), 3: (1, side, side)}[dimensions]
    return 1, latents.latent_channels, *sizes
