"""Finds faces and 468 landmarks in photos, in pure JAX: BlazeFace and MediaPipe's face-mesh net (v1)."""

from .faces import Faces, detect_faces
from .landmarks import detect, landmarks68_from_dense
from .nets import load_detector

__all__ = ["Faces", "detect", "detect_faces", "landmarks68_from_dense", "load_detector"]
