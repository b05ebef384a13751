"""The values that cross module borders: frozen pytree dataclasses of arrays.

Fixed letters: N subjects, V views, P vertices, F triangles, Q quads, I identity modes, E expression modes,
A albedo modes, K expression codes of a rig, L landmarks, H W image size.

Frames
  head frame   millimetres (times `HeadModel.unit_mm`), x to the subject's left, y up, z forward (towards the camera).
  image frame  pixels, u to the right, v down, pixel centres at integer coordinates; z in pixels, towards the camera.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

# A stage that ends where it began has stalled when its model promised a larger share of its energy than this.
SMALL_FALL = 1e-3


@struct.dataclass
class LandmarkEmbedding:
    """Points on the mesh surface, each a barycentric mix of three vertices.

    triangle:    (L, 3) int32 vertex indices.
    barycentric: (L, 3) float32, rows sum to 1.
    weight:      (L,) float32 in [0, 1]; 0 marks a point that has no trusted place on this mesh.
    """

    triangle: jax.Array
    barycentric: jax.Array
    weight: jax.Array


@struct.dataclass
class LandmarkCalibration:
    """How a landmark net's points differ from the places they are named after, measured on renders of the head.

    A net has habits: a mean offset, faces drawn towards its average, lids and lips that move less than they do. All are
    modelled as a linear change of the 3D points, so that the fit compares like with like; what is left is noise.

    offset:     (L, 3) unit, head frame.
    identity:   (I', L, 3) unit per identity coefficient, for the first I' <= I modes.
    expression: (E, L, 3) unit per expression coefficient.
    deviation:  (L,) mm, standard deviation of each point's own noise, per image axis.
    common:     (N, L, 2) mm, noise that points share: a point's noise is own + z @ common, z ~ N(0, 1); axes along the
                head's right and up directions in the image (the image turned back by the roll).
    """

    offset: jax.Array
    identity: jax.Array
    expression: jax.Array
    deviation: jax.Array
    common: jax.Array


@struct.dataclass
class HeadModel:
    """A morphable head: the only place that knows a topology, its bases and its landmarks.

    mean:             (P, 3) unit, head frame.
    identity_basis:   (I, P, 3) unit per standard deviation of the coefficient.
    expression_basis: (E, P, 3) unit at coefficient 1.
    albedo_mean:      (P, 3) see `albedo_space`.
    albedo_basis:     (A, P, 3) per standard deviation.
    faces:            (F, 3) int32, counter-clockwise seen from outside.
    quads:            (Q, 4) int32, the same surface for export (a triangle repeats its last index); Q = 0: none.
    uv:               (P, 2) in [0, 1], v up.
    face_mask:        (P,) float32, 1 on the face region, where photometric and feature energies are measured.
    part:             (P,) int32, 0 skin, 1 eyeballs, 2 teeth, tongue and mouth interior.
    regions:          name -> (P,) float32 soft mask in [0, 1] (lips, brows, eyelids, nose, eyes, cheeks, ...).
    ring, ring_weight: (P, M) int32, (P, M, 2) float32: two tangents of the surface at each vertex as combinations of
                      its neighbours, see head.topology.tangent_stencil.
    landmarks68:      the 68 iBUG points (index from 0).
    landmarks_dense:  the detector's dense points (468 for MediaPipe's), or None when the head has no such table.
    dense_calibration: how the detector's dense points differ from `landmarks_dense`, or None when not measured.
    mirror:           (P,) int32, index of each vertex's mirror image, or None when the mesh is not symmetric.
    coarse_faces:     (F', 3) int32 a coarser triangulation of the surface on the first `n_coarse` vertices, or None.
    expression_names: E names.
    unit_mm:          millimetres per length unit of this model (1 for the embedded head, 1e-3 for BFM).
    albedo_space:     'log': linear RGB = exp(mean + coeff @ basis); 'linear': clip(mean + coeff @ basis, 0, 1).
    expression_prior: 'unit_interval' for blendshape weights in [0, 1], 'normal' for N(0, 1) coefficients.
    name:             what this head is, for messages and records.
    version:          which build of it, from 1; the identity codes of one build mean nothing in another. 0: not known.
    """

    mean: jax.Array
    identity_basis: jax.Array
    expression_basis: jax.Array
    albedo_mean: jax.Array
    albedo_basis: jax.Array
    faces: jax.Array
    quads: jax.Array
    uv: jax.Array
    face_mask: jax.Array
    part: jax.Array
    regions: dict[str, jax.Array]
    landmarks68: LandmarkEmbedding
    landmarks_dense: LandmarkEmbedding | None
    mirror: jax.Array | None
    dense_calibration: LandmarkCalibration | None = None
    ring: jax.Array | None = None
    ring_weight: jax.Array | None = None
    coarse_faces: jax.Array | None = None
    n_coarse: int = struct.field(pytree_node=False, default=0)
    expression_names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    unit_mm: float = struct.field(pytree_node=False, default=1.0)
    albedo_space: str = struct.field(pytree_node=False, default="log")
    expression_prior: str = struct.field(pytree_node=False, default="unit_interval")
    name: str = struct.field(pytree_node=False, default="head")
    version: int = struct.field(pytree_node=False, default=0)


@struct.dataclass
class Photos:
    """Photos of one person as a fit takes them; what is None is filled in by `api.as_photos`.

    images:     (V, H, W, 3) sRGB, uint8 or float in [0, 1].
    image_size: (V, 2) height and width of each photo inside its padded image; None = all of it.
    view_mask:  (V,) 0 marks padding; None = all count.
    landmarks:  (V, 468, 3) photo pixels, z towards the camera; None = the detector finds them.
    landmark_weight: (V, 468) how much each point counts; None = 1.
    """

    images: jax.Array
    image_size: jax.Array | None = None
    view_mask: jax.Array | None = None
    landmarks: jax.Array | None = None
    landmark_weight: jax.Array | None = None


@struct.dataclass
class Detection:
    """What the detector found in one image (leading batch axes allowed on every field).

    box:         (4,) u0, v0, u1, v1 of the chosen face, image pixels.
    score:       () detector score of that face, 0 when there is none.
    landmarks:   (468, 3) image pixels; z in the same scale, towards the camera.
    presence:    () the landmark net's own belief that the crop holds a face, in [0, 1].
    found:       () bool, whether a face was found at all.
    other_boxes: (M, 4) the other faces' boxes, best first, zero padded.
    other_scores: (M,) their scores, 0 for padding.
    irises:      (2, 5, 3) like landmarks: the subject's right, left iris; its middle, then four points of its edge
      (iris_places in detect/). None from a landmark net that does not see them.
    """

    box: jax.Array
    score: jax.Array
    landmarks: jax.Array
    presence: jax.Array
    found: jax.Array
    other_boxes: jax.Array
    other_scores: jax.Array
    irises: jax.Array | None = None


@struct.dataclass
class Crop:
    """A square, upright window of a photo, resampled to `size` x `size` pixels (leading batch axes allowed).

    scale:  () crop pixels per photo pixel.
    offset: (2,) photo position (u, v) of the crop's pixel (0, 0).
    size:   side of the crop, px; static.
    """

    scale: jax.Array
    offset: jax.Array
    size: int = struct.field(pytree_node=False)


@struct.dataclass
class Views:
    """The per-view state of a fit; every field has a leading axis V. Geometry is in crop pixels.

    pose:             (V, 6) pitch, yaw, roll (rad); scale (px per head unit); tx, ty (px), see geometry.camera.
    inverse_distance: (V,) 1 / distance (head units) from the camera to the head origin; 0 = orthographic.
    expression:       (V, K) code of the rig.
    light:            (V, 9, 3) spherical-harmonics coefficients, see geometry.light.
    crop:             Crop from photo to crop pixels.
    landmarks:        (V, 468, 3) detected points, photo pixels.
    status:           (V,) int32 Status.
    """

    pose: jax.Array
    inverse_distance: jax.Array
    expression: jax.Array
    light: jax.Array
    crop: Crop
    landmarks: jax.Array
    status: jax.Array


@struct.dataclass
class RigWeights:
    """The personal small networks that turn an expression code into motion and shading; all zero moves nothing.

    Fixed letters: K codes, M linear modes, m and n a per-texel network's hidden and outer width, S texels per side.

    first, second: (M, K), (M, M) the network that mixes the linear modes.
    texels:        per further stage (S, S, m (K + n)) a network for each texel of the displacement map.
    albedo_texels: (S, S, m (K + n)) the same for the albedo map, or None when the albedo is static.
    """

    first: jax.Array
    second: jax.Array
    texels: tuple[jax.Array, ...]
    albedo_texels: jax.Array | None


@struct.dataclass
class NeuralRig:
    """What a learned rig has beyond its neutral, modes and static albedo.

    weights:       the person's small networks.
    outputs:       per entry of `weights.texels` the parameters of the map's last layers, the same for everybody.
    albedo_output: those of the albedo map, or None.
    uv:            (P, 2) where each vertex looks its values up.
    named_codes:   True: the code itself is the modes' weights, which the networks correct.
    expression_gain: largest weight of a mode that the networks give.
    linear_colour: whether the albedo is worked out in linear RGB, or in sRGB values as published.
    """

    weights: RigWeights
    outputs: tuple[dict, ...]
    albedo_output: dict | None
    uv: jax.Array
    named_codes: bool = struct.field(pytree_node=False, default=False)
    expression_gain: float = struct.field(pytree_node=False, default=3.0)
    linear_colour: bool = struct.field(pytree_node=False, default=True)


@struct.dataclass
class Rig:
    """A personalised face rig: everything `apply_rig` needs.

    neutral:        (P, 3) head frame, head units, zero expression.
    expression_basis: (K, P, 3) personalised displacement per unit of the code; of a learned rig (M, P, 3), the modes.
    albedo:         (P, 3) linear RGB in [0, 1]; where the albedo depends on the expression, before that.
    identity_code:  (I,) coefficients in the head's identity basis.
    albedo_code:    (A,) coefficients in the head's albedo basis; (0,) for a learned rig.
    neural:         None for a linear rig.
    head_version:   `HeadModel.version` of the head whose bases the codes belong to.
    """

    neutral: jax.Array
    expression_basis: jax.Array
    albedo: jax.Array
    identity_code: jax.Array
    albedo_code: jax.Array
    neural: NeuralRig | None = None
    code_names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    unit_mm: float = struct.field(pytree_node=False, default=1.0)
    head_version: int = struct.field(pytree_node=False, default=0)

    @property
    def n_codes(self) -> int:
        """K, the length of an expression code."""
        return self.expression_basis.shape[0] if self.neural is None else self.neural.weights.first.shape[-1]


@struct.dataclass
class Descent:
    """The Levenberg-Marquardt steps of one stage; T steps, leading axes allowed.

    Energies are totals under the weights of their own step (robust weights, visibility), so that within a step they can
    be compared.

    before:   (..., T) where the step starts.
    after:    (..., T) where it ends; `before` where every proposal would have raised the energy.
    start:    (..., T) where the stage started.
    promised: (..., T) how far the step's quadratic model says that the energy can fall; small where the gradient is.
    taken:    (..., T) damping of the proposal that was taken, 0 where none was.
    """

    before: jax.Array
    after: jax.Array
    start: jax.Array
    promised: jax.Array
    taken: jax.Array

    @property
    def moved(self) -> jax.Array:
        """(...,) whether any step of the stage lowered the energy."""
        return jnp.any(self.taken > 0, -1)

    @property
    def stalled(self) -> jax.Array:
        """(...,) whether the stage ended where it began although its gradient promised more."""
        return ~self.moved & jnp.any(self.promised > SMALL_FALL * jnp.abs(self.before), -1)


@struct.dataclass
class Trace:
    """What the stages of a fit did; None where a stage took no part.

    landmarks:       Descent of (T,) numbers, on the detector's landmarks.
    correspondences: (N, T), on the points of each look of the flow network.
    photometric:     (B, T), on colours too, one row for each blur, coarse to fine.
    expression:      (V, T), every view's own, on its pose and expression alone.
    identity:        (S, I) the identity after the landmarks, each look and each photometric stage.
    """

    landmarks: Descent
    correspondences: Descent | None
    photometric: Descent | None
    expression: Descent | None
    identity: jax.Array


@struct.dataclass
class Cover:
    """What covers the face in all views, so that it is no skin and was not fitted.

    vertices: (P,) in [0, 1], how surely each vertex is covered.
    regions:  (R,) 1 for each region that is, see fit.coverage.REGIONS.
    share:    (R,) share of each region that looks like skin in no view; of the two halves of the face, how hard the
              step of the light towards a shadow over them is.
    """

    vertices: jax.Array
    regions: jax.Array
    share: jax.Array


@struct.dataclass
class Fit:
    """What `fit_rig` returns.

    rig:    Rig of the person.
    views:  Views, one row per input photo.
    trace:  Trace; of the published method what `inorig.stages.solve_learned` returns.
    status: () int32 Status of the subject.
    cover:  Cover, or None where a solver does not look for it.
    """

    rig: Rig
    views: Views
    trace: Trace | dict
    status: jax.Array
    cover: Cover | None = None
