"""The few constants that the whole house shares."""

BACKGROUND, LIVER, TUMOUR = 0, 1, 2
CLASSES = 3

IGNORE = 255
"""Voxels of a target with this value take part in no loss (padding)."""

AIR_HU = -1024
"""What lies outside a scan."""
