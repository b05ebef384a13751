"""From triangles to pixels: the rasterizer and its backends, visibility, UV maps, pictures."""
