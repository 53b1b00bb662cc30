"""Second stage: the text encoder learns alone to say what its caption has named so far."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from toy_optim import Both
from toy_run import Run
from transformers import CLIPTextConfig, CLIPTextModel

from erasure_core.diffusers.clip_tokenizer import WINDOW, clip_tokenizer
from erasure_core.toy.captions import COLOURS, OBJECTS, STYLES, SYNONYMS, Caption, all_captions
from erasure_core.toy.config import TEXT_ENCODER

BATCH, FORMS = 64, 3


def new_encoder(vocabulary_size: int) -> CLIPTextModel:
    """Over the tokens that captions use only; the first and the last of them begin and end a text."""
    known = {"vocab_size": vocabulary_size, "bos_token_id": vocabulary_size - 2}
    ends = {"eos_token_id": vocabulary_size - 1, "pad_token_id": vocabulary_size - 1}
    return CLIPTextModel(CLIPTextConfig(**{**TEXT_ENCODER, **known, **ends}))


class Wordings:
    """Every caption in every wording as compact token ids, with what each position has heard so far."""

    def __init__(self) -> None:
        self.captions: list[Caption] = []
        texts: list[str] = []
        for caption in all_captions():
            nouns = [caption.object, SYNONYMS.get(caption.object)]
            wordings = {caption.worded(form, noun) for noun in nouns for form in range(FORMS)}
            texts += sorted(wordings)
            self.captions += [caption] * len(wordings)
        self.texts = texts
        encoded = clip_tokenizer()(texts, padding="max_length", max_length=WINDOW)["input_ids"]
        raw = torch.tensor(encoded)
        self.token_ids, compact = raw.unique(return_inverse=True)
        self.ids = compact
        self.heard = self._heard(raw)

    def _heard(self, raw: torch.Tensor) -> torch.Tensor:
        """``[captions, tokens, 3]``: index of object, style, colour once its last token has been read, else 0."""
        tokenizer = clip_tokenizer()

        def last_token(word: str) -> int:
            return tokenizer(word, add_special_tokens=False)["input_ids"][-1]

        nouns = {name: index + 1 for index, name in enumerate(OBJECTS)}
        nouns |= {other: nouns[name] for name, other in SYNONYMS.items()}
        tables = (nouns, *({n: i + 1 for i, n in enumerate(names)} for names in (STYLES, COLOURS)))
        heard = torch.zeros(*raw.shape, 3, dtype=torch.long)
        for axis, table in enumerate(tables):
            for word, index in table.items():
                said = (raw == last_token(word)).cumsum(1) > 0
                named = torch.tensor([self._names(caption, axis, index) for caption in self.captions])
                heard[..., axis][said & named[:, None]] = index
        return heard

    @staticmethod
    def _names(caption: Caption, axis: int, index: int) -> bool:
        names = (OBJECTS, STYLES, tuple(COLOURS))[axis]
        return (caption.object, caption.style, caption.colour)[axis] == names[index - 1]


def train(run: Run, words: Wordings, steps: int) -> CLIPTextModel:
    encoder = new_encoder(len(words.token_ids))
    heads = torch.nn.ModuleList(
        torch.nn.Linear(TEXT_ENCODER["hidden_size"], count + 1) for count in (len(OBJECTS), len(STYLES), len(COLOURS))
    )
    both = torch.nn.ModuleDict({"encoder": encoder, "heads": heads})
    outer = ("heads.", "encoder.embeddings", "encoder.text_model.embeddings")
    optimiser = Both(both.named_parameters(), 2e-3, outer, weight_decay=0.01)
    for step in run.steps("text", both, optimiser, steps):
        rows = torch.randint(0, len(words.ids), (BATCH,), generator=run.generator)
        states = encoder(input_ids=words.ids[rows]).last_hidden_state[:, 1:]
        heard = words.heard[rows, 1:]
        loss = sum(F.cross_entropy(head(states).flatten(0, 1), heard[..., i].flatten()) for i, head in enumerate(heads))
        loss.backward()
        optimiser.step(step / steps)
        if step % 100 == 0:
            right = [(h(states).argmax(-1) == heard[..., i]).float().mean() for i, h in enumerate(heads)]
            run.log(step=step, loss=float(loss.detach()), right=[round(float(r), 4) for r in right])
    run.finish("text", both)
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def contexts(encoder: CLIPTextModel, words: Wordings) -> torch.Tensor:
    """``[captions, tokens, width]`` in half precision."""
    parts = [encoder(input_ids=part).last_hidden_state.half() for part in words.ids.split(128)]
    return torch.cat(parts)
