"""What remains of a published-method fit once its codes are fixed: a rig of the expression code alone."""

from __future__ import annotations

import jax.numpy as jnp

from facerig_jax.inorig.config import InorigConfig
from facerig_jax.inorig.decode import DecodedRig
from facerig_jax.numerics import srgb_to_linear
from facerig_jax.types import HeadModel, NeuralRig, Rig


def freeze(decoded: DecodedRig, params: dict, head: HeadModel, config: InorigConfig) -> Rig:
    """What remains of a fit once its codes are fixed.

    Args:
      decoded: the rig after the last stage.
      params: all networks' parameters.
      head: morphable head.
      config: static settings.

    Returns:
      Rig with K = `config.networks.codes`.
    """
    sizes, stages = config.networks, params["stages"]
    count = min(sizes.modes, head.expression_basis.shape[0])
    named = sizes.named_codes or config.linear_rig
    texels = () if config.linear_rig else decoded.weights.texels
    dynamic = None if config.linear_rig else decoded.weights.albedo_texels
    names = tuple(head.expression_names[:count]) if named and sizes.codes == count else ()
    return Rig(
        neutral=decoded.neutral,
        expression_basis=jnp.asarray(head.expression_basis)[:count],
        albedo=srgb_to_linear(decoded.albedo) if dynamic is None and not config.linear_colour else decoded.albedo,
        identity_code=decoded.identity,
        albedo_code=jnp.zeros(0, decoded.albedo.dtype),
        neural=NeuralRig(
            weights=decoded.weights.replace(texels=texels, albedo_texels=dynamic),
            outputs=tuple(stage["expression_out"] for stage in stages[1:]) if texels else (),
            albedo_output=stages[2]["albedo_out"] if dynamic is not None else None,
            uv=jnp.asarray(head.uv),
            named_codes=named,
            expression_gain=sizes.expression_gain,
            linear_colour=config.linear_colour or dynamic is None,
        ),
        code_names=names or tuple(f"expression_{k}" for k in range(sizes.codes)),
        unit_mm=head.unit_mm,
        head_version=head.version,
    )
