"""Checkpoints to hand out: an erasure added to the weights of a file or folder, which keeps all else as it was."""
