"""What varies in synthetic subjects, and the presets."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class SubjectConfig:
    """What varies; lengths in mm, angles in degrees, image distances in px.

    n_views, size:     photos of one subject and their side.
    yaw, pitch, roll:  largest angles (uniform).
    distance:          nearest and farthest camera (log uniform).
    face_share:        smallest and largest head width over the image side.
    expressiveness:    probability that a blendshape is active; 0 = all views neutral.
    off_basis:         rms of smooth random displacement beyond the identity basis; 0 = inside the basis.
    specular:          largest strength of a highlight.
    sharp_light:       share of the light that comes from one direction, with its terminator and a soft cast shadow.
    noise:             pixel noise (sRGB).
    landmark_noise:    strength of what sets the landmarks apart from exact points, see data.detected; 0 = exact.
    """

    n_views: int = 4
    size: int = 384
    yaw: float = 40.0
    pitch: float = 15.0
    roll: float = 12.0
    distance: tuple[float, float] = (600.0, 3000.0)
    face_share: tuple[float, float] = (0.4, 0.6)
    expressiveness: float = 0.12
    off_basis: float = 0.0
    specular: float = 0.0
    sharp_light: float = 0.0
    noise: float = 0.01
    landmark_noise: float = 1.0


# What the classical solver models, and pixel noise.
PLAIN = SubjectConfig()
# The second table of the figures: everything the solver's model leaves out.
HARD = SubjectConfig(distance=(350.0, 3000.0), off_basis=1.0, specular=0.35, sharp_light=0.5, noise=0.02)
