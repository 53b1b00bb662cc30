"""ComfyUI's interface for packs, as small as tests of this one need it."""
