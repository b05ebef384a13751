"""Rotation, camera, sampling, light, meshes and the rasterizer."""
