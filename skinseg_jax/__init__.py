"""Skin-lesion segmentation in JAX: a U-Net on HAM10000."""

__version__ = '0.1.0'
