"""The linear layers through which text enters a denoiser of any architecture, and the token of each row they read."""
