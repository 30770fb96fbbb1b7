"""The model of MTTR: the masks of what a sentence names, in every frame."""
