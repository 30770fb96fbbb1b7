"""MTTR (Botach, Zheltonozhskii and Baskin, CVPR 2022, arXiv:2111.14821), with the published parameter names.

Shapes are in the names: T frames, B videos, N = T * B of their frames (time first), H x W pixels, h x w tokens of a
image, L tokens of a query, Q instances, K channels of a mask's features, D layers of the decoder, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.models.mttr.config import ARCHITECTURE, Architecture
from worker.models.mttr.pyramid import SpatialDecoder
from worker.models.mttr.transformer import MultimodalTransformer, position_encoding
from worker.networks.video_swin import VideoSwin


@dataclass(frozen=True, slots=True, eq=False)
class VideoBatch:
    """Videos side by side.

    Args:
        frames_TBCHW: float32, normalised; zeros where a video is shorter or smaller than the largest.
        valid_TBHW: False there; None where all are of one size and length.
    """

    frames_TBCHW: Tensor  # noqa: N815 (tensors carry their shape in the name)
    valid_TBHW: Tensor | None = None  # noqa: N815 (the same)


@dataclass(frozen=True, slots=True, eq=False)
class VideoFeatures:
    """What the backbone saw, and all that is made of it without a query.

    Args:
        tokens_NhwC: of the images at 1/16 of the size, as wide as the transformer.
        position_NhwC: where each lies in its image; N is 1 where all images are alike.
        valid_Nhw: False where there is no image; None where there always is.
        eighth_NChw, quarter_NChw: what the spatial decoder adds at 1/8 and 1/4 of the size.
    """

    tokens_NhwC: Tensor  # noqa: N815 (tensors carry their shape in the name)
    position_NhwC: Tensor  # noqa: N815 (the same)
    valid_Nhw: Tensor | None  # noqa: N815 (the same)
    eighth_NChw: Tensor  # noqa: N815 (the same)
    quarter_NChw: Tensor  # noqa: N815 (the same)

    def split_frames(self, frame_count: int) -> Iterator[VideoFeatures]:
        """One video, so many frames at a time: beyond the backbone each frame goes by itself."""
        for start in range(0, len(self.tokens_NhwC), frame_count):
            part = slice(start, start + frame_count)
            yield VideoFeatures(
                self.tokens_NhwC[part],
                self.position_NhwC if len(self.position_NhwC) == 1 else self.position_NhwC[part],
                None if self.valid_Nhw is None else self.valid_Nhw[part],
                self.eighth_NChw[part],
                self.quarter_NChw[part],
            )


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the network says of frames with a query each.

    Args:
        referred_DNQ2: logits after each layer of the decoder; class 0: the query refers to the instance.
        kernels_DNQK: of the instances.
        features_NKhw: of the pixels at 1/4 of the size.
        instances_DNQC: what both come from.
        memory_NSC: tokens as the encoder left them, of the image and then of the query.
    """

    referred_DNQ2: Tensor  # noqa: N815 (tensors carry their shape in the name)
    kernels_DNQK: Tensor  # noqa: N815 (the same)
    features_NKhw: Tensor  # noqa: N815 (the same)
    instances_DNQC: Tensor  # noqa: N815 (the same)
    memory_NSC: Tensor  # noqa: N815 (the same)

    def mask_logits(self, layer: int = -1) -> Tensor:
        """Logits of every instance's mask: (N, Q, h, w) at 1/4 of the size."""
        return torch.einsum("nqk,nkhw->nqhw", self.kernels_DNQK[layer], self.features_NKhw)


class KernelHead(nn.Module):
    """An instance to the kernel of its mask."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, kernel)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., K)."""
        first, last = self.layers
        kernels: Tensor = last(functional.relu(first(x)))
        return kernels


class MTTR(nn.Module):
    """The whole network.

    `encode_videos` once for a video, `encode_queries` once for a query, then `predict_instances` for each pair, gives
    what `forward` does.
    """

    def __init__(self, shape: Architecture = ARCHITECTURE) -> None:
        super().__init__()
        self.width = shape.hidden
        self.backbone = VideoSwin(shape.backbone)
        self.transformer = MultimodalTransformer(shape)
        self.is_referred_head = nn.Linear(shape.hidden, 2)
        self.instance_kernels_head = KernelHead(shape.hidden, shape.kernel)
        self.obj_queries = nn.Embedding(shape.instances, shape.hidden)
        self.vid_embed_proj = nn.Conv2d(shape.backbone.widths[-1], shape.hidden, 1)
        self.spatial_decoder = SpatialDecoder(shape)

    def forward(
        self, videos: VideoBatch, ids_BL: Tensor, valid_BL: Tensor, valid_T: Tensor | None = None
    ) -> Prediction:
        """Videos with a query each, as published.

        Args:
            videos: side by side.
            ids_BL: tokens of the queries.
            valid_BL: False where a query was filled up.
            valid_T: the frames that go beyond the backbone; None: all.
        """
        return self.predict_instances(
            self.encode_videos(videos, valid_T), self.encode_queries(ids_BL, valid_BL), valid_BL
        )

    def encode_videos(self, videos: VideoBatch, valid_T: Tensor | None = None) -> VideoFeatures:
        """What is the same for every query."""
        stages = self.backbone(videos.frames_TBCHW.permute(1, 2, 0, 3, 4))
        selected = [_select_frames(stage_BTHWC, valid_T) for stage_BTHWC in stages]
        quarter, eighth, sixteenth = (frames_NHWC.permute(0, 3, 1, 2) for frames_NHWC in selected)
        tokens_NChw = self.vid_embed_proj(sixteenth)
        size = tokens_NChw.shape[-2:]
        if videos.valid_TBHW is None:
            valid_Nhw, position_mask_Nhw = None, torch.ones(1, *size, dtype=torch.bool, device=tokens_NChw.device)
        else:
            valid_TBHW = videos.valid_TBHW if valid_T is None else videos.valid_TBHW[valid_T]
            valid_Nhw = position_mask_Nhw = downsample_mask(valid_TBHW.flatten(0, 1), size)
        position_NhwC = position_encoding(position_mask_Nhw, self.width)
        adapted = self.spatial_decoder.adapt_features(eighth, quarter)
        return VideoFeatures(tokens_NChw.permute(0, 2, 3, 1), position_NhwC, valid_Nhw, *adapted)

    def encode_queries(self, ids_BL: Tensor, valid_BL: Tensor) -> Tensor:
        """Queries to words for the transformer: (B, L, C)."""
        return self.transformer.encode_text(ids_BL, valid_BL)

    def predict_instances(
        self, features: VideoFeatures, words_BLC: Tensor, valid_BL: Tensor | None = None
    ) -> Prediction:
        """What the network says of frames that it has seen.

        Args:
            features: frames of B videos.
            words_BLC: of a query for each.
            valid_BL: False where a query was filled up; None where none was.
        """
        frames, height, width = features.tokens_NhwC.shape[:3]
        words_NLC = words_BLC.repeat(frames // len(words_BLC), 1, 1)
        instances_DNQC, memory_NSC = self.transformer(
            features.tokens_NhwC.flatten(1, 2),
            features.position_NhwC.flatten(1, 2),
            words_NLC,
            self.obj_queries.weight,
            _token_mask(features, words_NLC, valid_BL),
        )
        pixels_NhwC = memory_NSC[:, : height * width].unflatten(1, (height, width))
        with torch.autocast(memory_NSC.device.type, enabled=False):  # little work, on which the choice depends
            referred_DNQ2 = self.is_referred_head(instances_DNQC.float())
            kernels_DNQK = self.instance_kernels_head(instances_DNQC.float())
        return Prediction(
            referred_DNQ2,
            kernels_DNQK,
            self.spatial_decoder(pixels_NhwC.permute(0, 3, 1, 2), features.eighth_NChw, features.quarter_NChw),
            instances_DNQC,
            memory_NSC,
        )


def pad_videos(videos: Sequence[Tensor]) -> VideoBatch:
    """Videos (T, C, H, W) of any size and length, filled up with zeros at the end to the largest of each."""
    max_shape = [max(video.shape[dim] for video in videos) for dim in range(4)]
    frames_TBCHW = videos[0].new_zeros(max_shape[0], len(videos), *max_shape[1:])
    valid_TBHW = torch.zeros(max_shape[0], len(videos), *max_shape[2:], dtype=torch.bool, device=frames_TBCHW.device)
    for number, video in enumerate(videos):
        times, channels, height, width = video.shape
        frames_TBCHW[:times, number, :channels, :height, :width] = video
        valid_TBHW[:times, number, :height, :width] = True
    return VideoBatch(frames_TBCHW, valid_TBHW)


def downsample_mask(valid_NHW: Tensor, size: Sequence[int]) -> Tensor:
    """Which tokens of a smaller size are there: each that of the nearest pixel above and left of it."""
    return functional.interpolate(valid_NHW[:, None].float(), size=list(size), mode="nearest")[:, 0].bool()


def _select_frames(stage_BTHWC: Tensor, valid_T: Tensor | None) -> Tensor:
    """The frames of all videos, time first: (N, H, W, C)."""
    frames_TBHWC = stage_BTHWC.transpose(0, 1)
    return (frames_TBHWC if valid_T is None else frames_TBHWC[valid_T]).flatten(0, 1)


def _token_mask(features: VideoFeatures, words_NLC: Tensor, valid_BL: Tensor | None) -> Tensor | None:
    """Which tokens of image and query are there, (N, S); None: all."""
    if features.valid_Nhw is None and valid_BL is None:
        return None
    frames, words = words_NLC.shape[:2]
    pixels, device = features.tokens_NhwC.shape[1:3].numel(), words_NLC.device
    pixel_mask = torch.ones(frames, pixels, dtype=torch.bool, device=device)
    word_mask = torch.ones(1, words, dtype=torch.bool, device=device) if valid_BL is None else valid_BL.bool()
    if features.valid_Nhw is not None:
        pixel_mask = features.valid_Nhw.flatten(1)
    return torch.cat([pixel_mask, word_mask.repeat(frames // len(word_mask), 1)], dim=1)
