"""What a rig is: the UV features that one stage computed, rig codes, decoding to meshes, and the frozen rig."""
