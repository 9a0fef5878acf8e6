"""Relations: every clip shows what its label says, and backwards it shows what the label's partner says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from mmjepa.data.sprites.relations import RELATION_CLASSES

Truths = list[dict[str, Any]]


class Track:
    """The two paths of a clip, relative to each other, from stored ground truth alone."""

    def __init__(self, truth: dict[str, Any], backwards: bool) -> None:
        step = -1 if backwards else 1
        places = [np.array(item["positions"])[::step] for item in truth["objects"]]
        self.offset = (places[0] - places[1] + 32) % 64 - 32  # the shorter way around the torus, (T, 2)
        self.distance = np.hypot(*self.offset.T)
        self.velocity = [(np.diff(place, axis=0) + 32) % 64 - 32 for place in places]
        self.radii = [item["radius"] for item in truth["objects"]]
        self.in_front = (np.array(truth["objects"][0]["depth"]) > np.array(truth["objects"][1]["depth"]))[::step]
        self.outline = truth["objects"][1]["outline"]

    @property
    def apart(self) -> float:
        """Distance at which the two only just touch."""
        return float(sum(self.radii))

    @property
    def turning(self) -> float:
        """Total signed angle around the second object; positive is clockwise since y points down."""
        return float(np.unwrap(np.arctan2(self.offset[:, 1], self.offset[:, 0]))[[0, -1]] @ [-1, 1])

    @property
    def speed(self) -> np.ndarray:
        """Speed of the subject relative to the other, (T - 1,)."""
        return np.hypot(*np.diff(self.offset, axis=0).T)

    def delay(self) -> float:
        """By how many frames half of the way is done later than half of the time that the subject moves."""
        moving = np.flatnonzero(self.speed > 0.02)
        way = np.cumsum(self.speed)
        return float(np.searchsorted(way, way[-1] / 2) - (moving[0] + moving[-1]) / 2)

    def lead(self) -> float:
        """How far the subject is ahead of the other, along the way they run."""
        heading = self.velocity[0].mean(axis=0) + self.velocity[1].mean(axis=0)
        return float((self.offset @ heading / np.hypot(*heading)).mean())


def shows(name: str, track: Track) -> bool:
    """Whether a clip shows the relation ``name``; written without a look at how clips are drawn."""
    start, end, apart = track.distance[0], track.distance[-1], track.apart
    large, inside = track.radii[0] > track.radii[1], track.radii[1] - track.radii[0]
    front, never = track.in_front, not track.in_front.any()
    passes = track.distance.min() < apart + 2 and start > 20 < end
    relations: dict[str, Callable[[], bool]] = {
        "approaching": lambda: start > apart + 6 and end < apart + 3,
        "leaving": lambda: end > apart + 6 and start < apart + 3,
        "covering": lambda: start > apart and end < 0.1 and front.all() and large,
        "uncovering": lambda: end > apart and start < 0.1 and front.all() and large,
        "entering": lambda: track.outline > 0 and start > apart and end < inside,
        "exiting": lambda: track.outline > 0 and end > apart and start < inside,
        "hiding behind": lambda: start > apart and end < 0.1 and never and not large,
        "emerging from behind": lambda: end > apart and start < 0.1 and never and not large,
        "chasing": lambda: large and track.distance.std() < 4 and track.lead() < -8,
        "running ahead of": lambda: large and track.distance.std() < 4 and track.lead() > 8,
        "circling clockwise": lambda: track.distance.std() < 0.1 and track.turning > 3,
        "circling anticlockwise": lambda: track.distance.std() < 0.1 and track.turning < -3,
        "speeding up past": lambda: passes and track.delay() > 1,
        "slowing down past": lambda: passes and track.delay() < -1,
        "passing in front then behind": lambda: track.distance.min() < 5 and front[0] and not front[-1],
        "passing behind then in front": lambda: track.distance.min() < 5 and front[-1] and not front[0],
    }
    return bool(relations[name]())


def test_every_clip_shows_its_relation_and_backwards_the_partner(relations_test: Truths) -> None:
    for truth in relations_test:
        name, partner = truth["label_name"], RELATION_CLASSES[truth["label"] ^ 1]
        forwards, backwards = Track(truth, backwards=False), Track(truth, backwards=True)
        assert shows(name, forwards), name
        assert shows(partner, backwards), name
        assert not shows(partner, forwards), name


def test_reversed_clips_are_distributed_as_clips_of_the_partner(relations_test: Truths) -> None:
    for even in range(0, 16, 2):
        turned = [Track(truth, backwards=True) for truth in relations_test if truth["label"] == even]
        partner = [Track(truth, backwards=False) for truth in relations_test if truth["label"] == even + 1]
        assert len(turned) == len(partner) == 60
        for frame in (0, 8, 16, 24, 31):
            for look in (lambda t, f: t.distance[f], lambda t, f: t.offset[f, 0], lambda t, f: t.offset[f, 1]):
                samples = [[look(track, frame) for track in tracks] for tracks in (turned, partner)]
                assert stats.ks_2samp(*samples).pvalue > 1e-3 / 50


def test_places_on_the_screen_say_nothing(relations_test: Truths) -> None:
    for number in range(2):
        places = np.array([truth["objects"][number]["positions"] for truth in relations_test])
        for frame in (0, 16, 31):
            counts = np.histogram2d(*places[:, frame].T, bins=4, range=[[0, 64]] * 2)[0]
            assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_a_caption_can_tell_the_two_objects_apart(relations_test: Truths) -> None:
    for truth in relations_test:
        subject, other = truth["objects"]
        assert subject["shape"] != other["shape"]
        assert subject["colour"] != other["colour"]
