"""Where text enters a denoiser of any architecture, and which token each row stands for."""
