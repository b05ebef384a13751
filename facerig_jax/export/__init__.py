"""What comes out: meshes, GLB, rig files, pictures and the report page."""
