"""Morphable heads: the embedded CC0 head, models in published forms, and what a head computes."""

from facerig_jax.head.bfm import load_published_form
from facerig_jax.head.load import load_head
from facerig_jax.head.model import albedo, landmark_positions, neutral, vertices

__all__ = ["albedo", "landmark_positions", "load_head", "load_published_form", "neutral", "vertices"]
