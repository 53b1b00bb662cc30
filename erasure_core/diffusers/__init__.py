"""Diffusers pipelines, folders and checkpoints behind the contract of ``model.py``."""
