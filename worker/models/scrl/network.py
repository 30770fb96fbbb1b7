"""SCRL (Wu et al., CVPR 2022, arXiv:2205.05487) for scene boundaries, with the published parameter names.

Shapes are in the names: N shots as images of nine channels, B windows of L shots, D features of a shot.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from worker.models.scrl.config import ARCHITECTURE, KEYFRAMES_PER_SHOT, Architecture
from worker.networks.resnet import ResNet50


class BoundaryNetwork(nn.Module):
    """A bidirectional LSTM over the features of shots, between two batch-normalised linear layers.

    Args:
        shape: its architecture.
    """

    def __init__(self, shape: Architecture = ARCHITECTURE) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout(shape.input_dropout)
        self.embed_fc = nn.Linear(shape.features, shape.embedded)
        self.bn1 = nn.BatchNorm1d(shape.embedded)
        self.fc_dropout = nn.Dropout(shape.fc_dropout)
        self.lstm = nn.LSTM(
            shape.embedded,
            shape.hidden,
            shape.layers,
            batch_first=True,
            dropout=shape.lstm_dropout,
            bidirectional=True,
        )
        self.fc1 = nn.Linear(2 * shape.hidden, shape.hidden)
        self.bn2 = nn.BatchNorm1d(shape.hidden)
        self.fc2 = nn.Linear(shape.hidden, 2)

    def forward(self, shots_BLD: Tensor) -> Tensor:
        """Whether a scene ends with each shot: (B, L, D) features -> (B, L, 2) logits: no, yes."""
        windows, length, _ = shots_BLD.shape
        x = self.bn1(self.embed_fc(self.input_dropout(shots_BLD).flatten(0, 1)))
        x, _ = self.lstm(self.fc_dropout(x).view(windows, length, -1))
        x = self.bn2(self.fc1(x.flatten(0, 1)))
        logits_BL2: Tensor = self.fc2(functional.relu(self.fc_dropout(x))).view(windows, length, 2)
        return logits_BL2


class SCRL(nn.Module):
    """Shot encoder and boundary network. The encoder's head `fc` serves its pre-training only and is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet50(channels=3 * KEYFRAMES_PER_SHOT)
        self.boundary = BoundaryNetwork()

    def encode_shots(self, shots_NCHW: Tensor) -> Tensor:
        """Features of shots: float32 (N, 9, H, W), normalised -> (N, D), not normalised."""
        return self.encoder.extract_features(shots_NCHW)

    def forward(self, shots_BLD: Tensor) -> Tensor:
        """As `BoundaryNetwork`."""
        logits_BL2: Tensor = self.boundary(shots_BLD)
        return logits_BL2


def boundary_probabilities(logits_BL2: Tensor) -> Tensor:
    """Compute the probability of "yes": (B, L, 2) -> (B, L)."""
    return functional.softmax(logits_BL2, dim=-1)[..., 1]
