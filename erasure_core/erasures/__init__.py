"""The result of every method: changes of weights, what made them, and the LoRA files that hold them."""
