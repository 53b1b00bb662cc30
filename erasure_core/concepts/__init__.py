"""What users name: concepts, lists of them, prompts that name them, everyday concepts to preserve."""
