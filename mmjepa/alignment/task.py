"""Fitting a text head on a frozen encoder, as a task of the training engine, from cached features."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmjepa.alignment.captions import CaptionTable
from mmjepa.alignment.config import AlignParts
from mmjepa.alignment.features import stored_features
from mmjepa.alignment.heads import AlignmentHead, HeadInfo, save_head
from mmjepa.alignment.losses import LOSSES
from mmjepa.errors import UserError
from mmjepa.evaluation.retrieval import both_directions
from mmjepa.frozen import FeatureSet, FeatureStore, FrozenEncoder, Tokens, build_encoder
from mmjepa.frozen.clips import open_clips
from mmjepa.text import build_text_tower
from mmjepa.training.config import TrainingConfig
from mmjepa.training.launch import on_first_rank
from mmjepa.training.task import Layout, Task

logger = logging.getLogger(__name__)
ORDER_STREAM, DRAW_STREAM = 10, 11
"""Keep the generators of epoch order and of captions and conditions apart."""
FIT_ROWS = 256
HOLDOUT_FOLDS = 2**32


@dataclass(frozen=True)
class AlignBatch:
    """Rows of a step's global batch: features, one caption's embedding (B, D) and wording id (B,) per video, and the
    wording ids of all captions of each video (B, M)."""

    keys: list[str]
    features: Tokens
    text: Tensor
    caption: Tensor
    captions_of_video: Tensor


class AlignTask(Task):
    """Contrastive fitting of an :class:`AlignmentHead`. The encoder and the text tower stay as they are.

    Features are encoded once by rank 0 and read from disk by all. Per step every video contributes one of its captions
    and, with training dropout, one of its conditions, drawn by (seed, step) for the whole global batch.
    """

    export_name = "head"

    def __init__(self, config: TrainingConfig, parts: AlignParts, device: torch.device) -> None:
        super().__init__(config.precision)
        self.config, self.parts, self.device = config, parts, device
        encoder = build_encoder(parts.encoder)
        tower = build_text_tower(parts.text, device)
        self.spec, self.tower_name = encoder.spec, tower.name
        self.features = self._read_features(encoder)
        clean = self.features[0]
        self.captions = CaptionTable(clean.keys, clean.captions, tower)
        self.train_videos, self.holdout_videos = self._split(clean.keys)
        self.head = AlignmentHead(parts.align.head, clean.token_shape, tower.width)
        self.head.pooler.whitening.fit(
            clean.rows(chunk) for chunk in np.array_split(self.train_videos, -(-len(self.train_videos) // FIT_ROWS))
        )
        self.contrast = LOSSES[parts.align.loss]()
        self.to(device)

    def _split(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the videos to fit on and of those held out. Raises UserError if there are too few of either."""
        held_out = np.array([held_out_for_choices(key, self.parts.align.holdout) for key in keys])
        fitted, kept = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        if len(fitted) < self.config.batch_size or not len(kept):
            raise UserError(
                f"batch_size={self.config.batch_size} does not fit {len(fitted)} training videos "
                f"({len(kept)} more are held out): use more videos or a smaller batch"
            )
        return fitted, kept

    def _read_features(self, encoder: FrozenEncoder) -> list[FeatureSet]:
        """Features under each condition of training dropout, the clean one first.

        What is wrong with the videos is found before they are encoded.
        """
        align, source = self.parts.align, self.parts.data
        paths = [source.source_path(name) for name in source.sources]
        data = open_clips(paths, encoder.spec, align.encode_batch, source.workers, align.limit)
        self.data_fingerprint = data.fingerprint
        data.require("captions")
        self._split(data.keys)
        store, conditions = FeatureStore(Path(align.features)), align.dropout.conditions()
        on_first_rank(lambda: stored_features(store, encoder, data, conditions))
        return stored_features(store, encoder, data, conditions)

    def losses(self, batch: AlignBatch) -> dict[str, Tensor]:
        """See :meth:`Task.losses`. Negatives come from all ranks, but from one micro-batch only."""
        features = Tokens(batch.features.tokens.to(self.device), batch.features.present.to(self.device))
        loss = self.contrast(
            self.head.embed_video(features),
            self.head.embed_text(batch.text.to(self.device)),
            batch.captions_of_video.to(self.device),
            batch.caption.to(self.device),
        )
        return {"loss": loss, "inverse_temperature": self.contrast.scale.squeeze()}

    def batches(self, start_step: int, layout: Layout) -> Iterator[Sequence[AlignBatch]]:
        """See :meth:`Task.batches`. Epochs are permutations of the training videos, without their ragged end."""
        size = self.config.batch_size
        rows = layout.micro_rows(size)
        per_epoch = len(self.train_videos) // size
        for step in range(start_step, self.config.steps):
            epoch, place = divmod(step, per_epoch)
            order = np.random.default_rng((self.config.seed, ORDER_STREAM, epoch)).permutation(self.train_videos)
            videos = order[place * size : (place + 1) * size]
            draws = np.random.default_rng((self.config.seed, DRAW_STREAM, step)).random((2, size))
            yield [self._batch(videos[part], draws[:, part]) for part in rows]

    def _batch(self, videos: np.ndarray, draws: np.ndarray) -> AlignBatch:
        index = torch.from_numpy(videos)
        caption = self.captions.pick(index, torch.from_numpy(draws[0]))
        condition = (draws[1] * len(self.features)).astype(int)
        features = [self.features[chosen].rows([video]) for chosen, video in zip(condition, videos, strict=True)]
        return AlignBatch(
            keys=[self.features[0].keys[video] for video in videos],
            features=Tokens(torch.cat([row.tokens for row in features]), torch.cat([row.present for row in features])),
            text=self.captions.embeddings[caption],
            caption=caption,
            captions_of_video=self.captions.wordings[index],
        )

    def batch_keys(self, batch: AlignBatch) -> list[str]:
        """See :meth:`Task.batch_keys`."""
        return batch.keys

    def health(self) -> dict[str, float]:
        """Retrieval of the held-out training videos, both directions, all their captions, no frames lost."""
        return {f"holdout/{name}": value for name, value in self.holdout_metrics().items()}

    @torch.no_grad()
    def holdout_metrics(self) -> dict[str, float]:
        """R@1, R@5 and R@10 by ``<direction>/<metric>``; what settings are chosen by, never the test set."""
        self.head.eval()
        videos = torch.from_numpy(self.holdout_videos)
        chunks = [self.features[0].rows(chunk.tolist()) for chunk in videos.split(FIT_ROWS)]
        video = [
            self.head.embed_video(Tokens(chunk.tokens.to(self.device), chunk.present.to(self.device)))
            for chunk in chunks
        ]
        captions_of_video = self.captions.wordings[videos]
        caption = captions_of_video[captions_of_video >= 0].unique()
        text = self.head.embed_text(self.captions.embeddings[caption].to(self.device))
        self.head.train()
        positives = (captions_of_video[None] == caption[:, None, None]).any(dim=2).numpy()
        results = both_directions(text.cpu().numpy(), torch.cat(video).cpu().numpy(), positives)
        return {
            f"{direction}/{name}": value
            for direction, result in results.items()
            for name, value in result.metrics.items()
            if name.startswith("R@")
        }

    def data_fingerprints(self) -> dict[str, str]:
        """See :meth:`Task.data_fingerprints`."""
        return {"encoder": self.spec.fingerprint, "videos": self.data_fingerprint}

    def export(self, folder: Path, step: int) -> None:
        """Write the head; see :func:`save_head`."""
        info = HeadInfo(
            encoder=self.spec.name,
            encoder_fingerprint=self.spec.fingerprint,
            text=replace(self.parts.text, cache=None),  # a place on this machine is no part of the head
            text_tower=self.tower_name,
            seed=self.config.seed,
            step=step,
            loss=self.parts.align.loss,
            holdout=self.holdout_metrics(),
        )
        save_head(self.head, info, folder)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in info.holdout.items())
        logger.info("head on %s, %d held-out training videos: %s", self.spec.name, len(self.holdout_videos), shown)


def held_out_for_choices(key: str, share: float) -> bool:
    """Whether a training video is held out; by its key alone, so that every setting is judged on the same videos."""
    digest = hashlib.blake2b(key.encode(), key=b"alignment holdout", digest_size=4).digest()
    return int.from_bytes(digest, "little") < share * HOLDOUT_FOLDS
