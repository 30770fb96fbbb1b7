"""Catalog entry for masks of the object that a sentence names."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from shared.catalog.spec import ModelSpec, PreciseParams, WeightsSpec

Query = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class MttrParams(PreciseParams):
    """Parameters of `mttr`."""

    queries: tuple[Query, ...] = Field(
        min_length=1,
        max_length=8,
        description="The objects to find, each in a few English words, such as `a person in red on the left`.",
    )
    start_s: float = Field(0.0, ge=0, description="Where in the video to begin: seconds since its first frame.")
    end_s: float | None = Field(None, gt=0, description="Where to stop; nothing: at the end of the video.")
    link: bool = Field(
        False,
        description="Keep the object the same from window to window by the overlap of its masks. "
        "As published each window of 24 frames chooses for itself.",
    )
    overlay: bool = Field(True, description="Also yield the video with the masks drawn over it, sound kept.")
    masks: bool = Field(False, description="Also yield every mask as a PNG picture, in one archive.")
    short_side: int = Field(
        360, ge=96, le=720, description="Pixels of the short side of what the network sees; published: 360."
    )

    @model_validator(mode="after")
    def _check_range_order(self) -> Self:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError("end_s must come after start_s")
        return self


MTTR = ModelSpec(
    name="mttr",
    title="Masks (MTTR)",
    summary="Where the thing you name is, pixel by pixel: a track with a mask in every frame, and an overlay video.",
    paper="Botach et al., End-to-End Referring Video Object Segmentation with Multimodal Transformers (CVPR 2022), "
    "arXiv:2111.14821",
    params=MttrParams,
    needs=(),
    results=("track",),
    artifacts=("tracks", "overlay_video", "masks"),
    weights=WeightsSpec(
        name="mttr.safetensors",
        sha256=None,
        size=None,
        licence="Apache-2.0",
        origin="ModelScope damo/cv_swin-t_referring_video-object-segmentation",
        how="sceneworks-worker weights pull mttr",
    ),
    example=(("queries", ("the big rabbit",)),),
)
