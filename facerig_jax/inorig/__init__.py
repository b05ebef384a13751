"""The published method, exactly: its networks, energies and stages, and the import of its weights."""

from facerig_jax.inorig.import_published import import_published
from facerig_jax.inorig.pth import read_pth

__all__ = ["import_published", "read_pth"]
