"""The seven sentences that guide a summary: those of the request, or where it has none, of a source of captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, Protocol, assert_never

import numpy as np
import numpy.typing as npt

from worker.models.clip_it.config import ARCHITECTURE

NEUTRAL_SENTENCES = ("a video",)
"""What guides a summary that nobody asked anything of: it names no thing and no deed, so it prefers none."""


@dataclass(frozen=True, slots=True)
class Guide:
    """The sentences that guide a summary.

    Args:
        caption_frames: the seven that the network reads, in order; some may be the same.
        make_caption_source: `request`, or the name of the source of captions.
    """

    sentences: tuple[str, ...]
    source: str

    @property
    def distinct_sentences(self) -> tuple[str, ...]:
        """Each sentence once, in order."""
        return tuple(dict.fromkeys(self.sentences))


class CaptionSource(Protocol):
    """Captions a video for which the request has no sentences."""

    @property
    def name(self) -> str:
        """For the result."""

    def caption_frames(self, features_TD: npt.NDArray[np.float32]) -> tuple[str, ...]:
        """Return at least one sentence, from the CLIP features of the sampled frames (T, 512)."""


@dataclass(frozen=True, slots=True)
class NeutralCaptions:
    """The same caption for every video.

    The published pipeline captions the video itself there: I3D and VGGish features through BMT (Iashin and Rahtu, BMVC
    2020), seven of whose captions it draws at random.
    """

    name: str = "neutral"

    def caption_frames(self, features_TD: npt.NDArray[np.float32]) -> tuple[str, ...]:  # noqa: ARG002 (others look at it)
        """`NEUTRAL_SENTENCES`."""
        return NEUTRAL_SENTENCES


def make_caption_source(name: Literal["neutral"]) -> CaptionSource:
    """Make the source of captions that a request names."""
    match name:
        case "neutral":
            return NeutralCaptions()
        case _:
            assert_never(name)


def build_guide(sentences: Sequence[str], fallback: CaptionSource, features_TD: npt.NDArray[np.float32]) -> Guide:
    """Choose the sentences that guide the summary of a video.

    Args:
        caption_frames: of the request.
        fallback: where they come from if that has none.
        features_TD: of the sampled frames.
    """
    if sentences:
        return Guide(select_sentences(sentences), "request")
    return Guide(select_sentences(fallback.caption_frames(features_TD)), fallback.name)


def select_sentences(sentences: Sequence[str]) -> tuple[str, ...]:
    """Select as many as the network reads: of fewer the last is repeated; of more, evenly spread ones with both ends.

    The published pipeline draws seven of more at random and puts them in order; this choice is always the same.
    """
    count, required = len(sentences), ARCHITECTURE.sentences
    if count <= required:
        return (*sentences, *repeat(sentences[-1], required - count))
    return tuple(sentences[slot * (count - 1) // (required - 1)] for slot in range(required))
