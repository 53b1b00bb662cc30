"""The only code that knows ComfyUI's internals: models, text encoders, patches, sampling, files."""
