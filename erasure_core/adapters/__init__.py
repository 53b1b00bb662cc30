"""Real models behind the ``TextToImageModel`` protocol."""
