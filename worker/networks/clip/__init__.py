"""CLIP ViT-B/32 (Radford et al., 2021): pictures and sentences into one space, by OpenAI's names and numbers."""
