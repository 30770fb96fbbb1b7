"""Catalog entry for summaries guided by language."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.catalog.spec import ModelSpec, PreciseParams, WeightsSpec

Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class ClipItParams(PreciseParams):
    """Parameters of `clip_it`."""

    sentences: tuple[Sentence, ...] = Field(
        (),
        max_length=64,
        description="What the summary is to be about, in English; at most 75 tokens each, about 50 words. "
        "None: the text of `captions`. Another question about the same video is answered without reading it again.",
    )
    budget: float = Field(0.15, gt=0, le=1, description="Part of the video that the summary may have.")
    sample_every: int = Field(15, ge=1, le=1000, description="Every how many frames are looked at; published: 15.")
    captions: Literal["neutral"] = Field(
        "neutral", description="Where the text comes from without sentences. neutral: one that names nothing."
    )
    summary_video: bool = Field(True, description="Also yield the summary as a video, with its sound, and a poster.")


CLIP_IT = ModelSpec(
    name="clip_it",
    title="Summary (CLIP-It)",
    summary="What to watch of it: a score for each moment guided by your sentences, the highlights, a summary video.",
    paper="Narasimhan et al., CLIP-It! Language-Guided Video Summarization (NeurIPS 2021), arXiv:2107.00650",
    params=ClipItParams,
    needs=(),
    results=("frame_score", "segment", "highlight", "caption"),
    artifacts=("frame_features", "summary_video", "poster"),
    weights=WeightsSpec(
        name="clip_it.safetensors",
        sha256=None,
        size=None,
        licence="MIT AND Apache-2.0",
        origin="ModelScope damo/cv_clip-it_video-summarization_language-guided_en",
        how="sceneworks-worker weights pull clip_it",
    ),
    postprocess_params=("sentences", "budget", "captions", "summary_video"),
)
