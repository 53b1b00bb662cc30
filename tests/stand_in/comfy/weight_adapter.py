"""A low-rank patch."""


class LoRAAdapter:
    def __init__(self, loaded_keys, weights):
        self.loaded_keys, self.weights = loaded_keys, weights

    def change(self):
        up, down = self.weights[:2]
        return up.float() @ down.float()
