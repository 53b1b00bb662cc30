"""A text encoder: its weights with patches, and its words."""

import torch

from comfy.model_patcher import ModelPatcher


class CLIP:
    """Every word is a token, and what it gives is told by the lengths of the words up to it."""

    def __init__(self, stage, names=("l",), room=6, width=4, pooled=False):
        self.cond_stage_model, self.patcher = stage, ModelPatcher(stage)
        self.names, self.room, self.width, self.pooled = names, room, width, pooled

    def clone(self):
        other = type(self)(self.cond_stage_model, self.names, self.room, self.width, self.pooled)
        other.patcher = self.patcher.clone()
        return other

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        return self.patcher.add_patches(patches, strength_patch, strength_model)

    def tokenize(self, text, return_word_ids=False, **_):
        words = text.replace("\\(", "(").replace("\\)", ")").split()
        rows = [words[start : start + self.room] for start in range(0, len(words), self.room)] or [[]]
        windows = []
        for row in rows:
            tokens = [(0, 1.0, 0), *((len(word), 1.0, place + 1) for place, word in enumerate(row))]
            tokens += [(99, 1.0, 0)] * (self.room + 2 - len(tokens))
            windows.append(tokens if return_word_ids else [token[:2] for token in tokens])
        return {name: windows for name in self.names}

    def encode_from_tokens(self, tokens, return_pooled=False):
        """As ComfyUI does it, windows come side by side in one row."""
        heard = [torch.tensor([[float(token[0]) for token in row] for row in rows]) for rows in tokens.values()]
        context = torch.cat([rows.cumsum(1)[:, :, None].expand(-1, -1, self.width) for rows in heard], 2)
        context = context.reshape(1, -1, context.shape[-1])
        if not return_pooled:
            return context
        return context, context[:, -1, : self.width - 1] if self.pooled else None
