"""The room of CLIP-It: what to watch of a film, guided by sentences."""
