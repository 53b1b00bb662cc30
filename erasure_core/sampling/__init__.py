"""Drawing pictures: DDIM with classifier-free guidance, its inversion, and purifying."""
