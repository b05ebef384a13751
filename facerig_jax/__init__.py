"""facerig_jax: a riggable 3D face from ordinary photos, in JAX."""
