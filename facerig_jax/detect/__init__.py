"""Finds faces, 468 landmarks and irises in photos, in pure JAX: BlazeFace and MediaPipe's face-mesh nets."""

from .faces import Faces, detect_faces
from .landmarks import detect, iris_places, landmarks68_from_dense
from .nets import load_detector

__all__ = ["Faces", "detect", "detect_faces", "iris_places", "landmarks68_from_dense", "load_detector"]
