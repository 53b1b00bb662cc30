"""Shared parts of the methods that train: the loop, losses, trainable weights, a discriminator, memory needs."""
