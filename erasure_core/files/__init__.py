"""Reading and writing of files: safetensors, JSON, pictures and lists of text, written whole or not at all."""
