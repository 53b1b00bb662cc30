"""A model with patches that are added when it is used; clones share the weights."""

from types import SimpleNamespace

import torch

from comfy.lora import calculate_weight
from comfy.utils import get_attr


class ModelPatcher:
    def __init__(self, model, sampling=None):
        self.model, self.load_device = model, torch.device("cpu")
        self.objects = {"model_sampling": sampling}
        self.patches, self.backup, self.hook_backup, self.object_patches = {}, {}, {}, {}

    def clone(self):
        other = type(self)(self.model)
        other.objects, other.backup = self.objects, self.backup
        other.object_patches = dict(self.object_patches)
        other.patches = {key: list(patches) for key, patches in self.patches.items()}
        return other

    def get_model_object(self, name):
        return self.objects[name]

    def model_state_dict(self, prefix=""):
        return {key: weight for key, weight in self.model.state_dict().items() if key.startswith(prefix)}

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        """As in ComfyUI, what is not known is dropped without a word; the names that were taken are returned."""
        known = [key for key in patches if key in self.model.state_dict()]
        for key in known:
            self.patches[key] = [*self.patches.get(key, []), (strength_patch, patches[key], strength_model, None, None)]
        return known

    def get_key_patches(self, prefix=""):
        return {key: [(weight, lambda w: w), *self.patches.get(key, [])]
                for key, weight in self.model_state_dict(prefix).items()}  # fmt: skip

    def into_memory(self):
        """Write the patches into the weights, with a backup that all clones see."""
        for key, patches in self.patches.items():
            layer, _, name = key.rpartition(".")
            layer = get_attr(self.model, layer)
            weight = getattr(layer, name)
            self.backup[key] = SimpleNamespace(weight=weight.detach().clone())
            weight.data = calculate_weight(patches, weight.detach().float(), key).to(weight.dtype)
