"""The model of CLIP-It: what to watch of a video, guided by sentences."""
