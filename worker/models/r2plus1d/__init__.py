"""The model of R(2+1)D: a video, or each of its shots, as one vector by which it is found again."""
