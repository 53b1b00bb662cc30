"""What the pack's nodes use of ComfyUI, as small as its tests need it; written for them, nothing of it is ComfyUI's."""
