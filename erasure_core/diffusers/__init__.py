"""The backend for diffusers: pipelines, folders and checkpoints as models that fulfil the contract of ``model.py``."""
