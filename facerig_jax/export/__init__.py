"""What comes out: meshes, GLB, rig files, pictures and the report page."""

from __future__ import annotations

from pathlib import Path

from facerig_jax.checks import check_choice
from facerig_jax.export.glb import DETAILS, write_glb
from facerig_jax.export.rig_file import check_rig_and_path, load_rig, save_rig

__all__ = ["export_rig", "load_rig", "save_rig"]

FORMATS = (".glb", ".obj", ".ply", ".npz")


def export_rig(rig, path, head=None, texture=None, detail="full") -> None:
    """Writes a rig to one file, by its suffix; atomic.

    .glb  metres, neutral with every code as a named morph target, textured (needs pygltflib); of a learned rig a linear
          approximation, see `rig.neural.linearize`
    .obj  millimetres, neutral skin with quads and texture; writes .mtl and .png beside it
    .ply  millimetres, neutral skin with a colour per vertex
    .npz  all arrays of the rig, exact, for `load_rig`

    Args:
      rig: one Rig, without batch axes.
      path: file to write.
      head: the head the rig was made with; default `facerig_jax.load_head()`.
      texture: (S, S, 3) sRGB, uint8 or float in [0, 1]; default: the rig's albedo.
      detail: of a .glb, 'full' or 'coarse': all vertices, or those of the head's coarse mesh (of the embedded head
        4,781, MakeHuman's own) for a file about four times smaller. The other formats are written in full.

    Raises:
      ValueError: unknown suffix, shapes of rig, head and texture that do not belong together, or a detail that the
        format or the head does not have.
      ImportError: an optional package is missing.
      WriteError: see `files.atomic_write`.

    Example:
      facerig_jax.export_rig(fit.rig, "out/person.glb", detail="coarse")
    """
    check_rig_and_path("export_rig", rig, path)
    suffix = check_choice("path suffix", Path(path).suffix.lower(), FORMATS)
    check_choice(f"detail of a {suffix} file", detail, DETAILS if suffix == ".glb" else ("full",))
    if head is None:
        from facerig_jax.head import load_head

        head = load_head()
    if suffix == ".npz":
        return save_rig(rig, path, head)
    if suffix == ".ply":
        return _write_ply(path, rig, head)
    if texture is None:
        from facerig_jax.texture import albedo_texture

        texture = albedo_texture(head, rig)
    if suffix == ".obj":
        return _write_obj(path, rig, head, texture)
    return write_glb(path, rig, head, texture, detail=detail)


def _write_ply(path, rig, head) -> None:
    import numpy as np

    from facerig_jax.io.mesh_files import submesh, write_ply
    from facerig_jax.raster.render import linear_to_srgb8
    from facerig_jax.rig.neural import rest_albedo

    index, faces = submesh(head.faces, np.asarray(head.part) == 0)
    colours = np.asarray(linear_to_srgb8(rest_albedo(rig)))
    write_ply(path, rig.unit_mm * np.asarray(rig.neutral)[index], faces, colours[index])


def _write_obj(path, rig, head, texture) -> None:
    import numpy as np

    from facerig_jax.io.files import write_image
    from facerig_jax.io.mesh_files import submesh, write_obj

    polygons = np.asarray(head.quads) if len(head.quads) else np.asarray(head.faces)
    index, polygons = submesh(polygons, np.asarray(head.part) == 0)
    picture = Path(path).with_suffix(".png")
    write_image(picture, texture)
    write_obj(path, rig.unit_mm * np.asarray(rig.neutral)[index], polygons, np.asarray(head.uv)[index], picture.name)
