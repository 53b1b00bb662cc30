"""Erasures, the result of every method: changes of weights, their origins, and the LoRA files that hold them."""
