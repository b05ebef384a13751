"""What everything else reads and writes files with: whole files and folders, arrays, meshes, settings."""
