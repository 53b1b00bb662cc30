"""Files that are read with care and written whole: safetensors, JSON, pictures, lists."""
