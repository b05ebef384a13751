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
    low_lids:          share of the photos with lids half or wholly closed.
    spread:            largest factor on the identity's coefficients (uniform from 1): faces farther from the mean.
    off_basis:         rms of smooth random displacement beyond the identity basis; 0 = inside the basis.
    specular:          largest strength of a highlight.
    sharp_light:       share of the light that comes from one direction, with its terminator and a soft cast shadow.
    noise:             pixel noise (sRGB).
    landmark_noise:    strength of what sets the landmarks apart from exact points, see imitated_landmarks; 0 = exact.
    renderer:          'plain' (synthetic.plain) or 'photo' (synthetic.photo), which alone knows what follows.
    personal:          strength of a person's own motion beyond the blendshapes; 1 = about a third of the motion.
    fine_shape:        rms of bumps of 3 to 8 mm on the skin.
    placement:         rms of a smooth shift of all colours over the skin: brows and lips off the basis' vertices.
    detail:            strength of what is finer than the albedo modes: moles, freckles, pores, stubble, make-up.
    skin, light:       model of skin detail ('spots', 'waves') and of lamps ('key', 'many').
    hair, headwear, glasses: share of the people who wear it.
    beard:             share of the men with a beard or stubble.
    hand:              share of the photos with a hand or an object before the face.
    scene:             True: clothes, and backgrounds of many kinds; False: smooth colours.
    shadows:           strength of shadows that the head casts on itself.
    sensor:            strength of blur, white balance, vignette, tone curve and JPEG artefacts.
    """

    n_views: int = 4
    size: int = 384
    yaw: float = 40.0
    pitch: float = 15.0
    roll: float = 12.0
    distance: tuple[float, float] = (600.0, 3000.0)
    face_share: tuple[float, float] = (0.4, 0.6)
    expressiveness: float = 0.12
    low_lids: float = 0.0
    spread: float = 1.0
    off_basis: float = 0.0
    specular: float = 0.0
    sharp_light: float = 0.0
    placement: float = 0.0
    noise: float = 0.01
    landmark_noise: float = 1.0
    renderer: str = "plain"
    personal: float = 0.0
    fine_shape: float = 0.0
    detail: float = 0.0
    skin: str = "spots"
    light: str = "key"
    hair: float = 0.0
    headwear: float = 0.0
    glasses: float = 0.0
    beard: float = 0.0
    hand: float = 0.0
    scene: bool = False
    shadows: float = 0.0
    sensor: float = 0.0


# What the classical solver models, and pixel noise.
PLAIN = SubjectConfig()
# The second table of the figures: everything the solver's model leaves out.
HARD = SubjectConfig(distance=(350.0, 3000.0), off_basis=1.0, specular=0.35, sharp_light=0.5, noise=0.02)
# What networks are trained on: everything on.
TRAIN = SubjectConfig(
    size=256,
    yaw=50.0,
    pitch=22.0,
    roll=20.0,
    distance=(300.0, 4000.0),
    face_share=(0.4, 0.62),
    expressiveness=0.14,
    off_basis=0.9,
    specular=0.5,
    sharp_light=0.8,
    noise=0.025,
    renderer="photo",
    personal=1.0,
    fine_shape=0.12,
    detail=1.0,
    hair=0.95,
    headwear=0.15,
    glasses=0.2,
    beard=0.6,
    hand=0.08,
    scene=True,
    shadows=1.0,
    sensor=1.0,
)
# More varied people than the basis knows, for training: farther from the mean and from the basis, and with colours
# elsewhere on the skin (else a network learns that a brow's edge is a certain vertex).
HARD_VARIED = dataclasses.replace(HARD, spread=1.6, off_basis=1.5, placement=2.5)
TRAIN_VARIED = dataclasses.replace(TRAIN, spread=1.6, off_basis=1.4, placement=2.5)
# The same for the refined head, whose modes hold nearly all of real people's shapes; and with eyes that are closed.
HARD_REFINED = dataclasses.replace(HARD_VARIED, spread=1.5, off_basis=1.0, low_lids=0.15)
TRAIN_REFINED = dataclasses.replace(TRAIN_VARIED, spread=1.5, off_basis=1.0, low_lids=0.15)
# Never trained on: another skin, and other lamps with another camera.
OTHER_SKIN = dataclasses.replace(TRAIN, skin="waves")
OTHER_LIGHT = dataclasses.replace(TRAIN, light="many", sensor=1.3, noise=0.03, distance=(250.0, 6000.0))
