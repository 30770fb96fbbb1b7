"""CLIP ViT-B/32 (Radford et al., 2021): images and sentences into one space, by OpenAI's names and numbers."""
