"""Enlarge, restore and fill pictures with one latent diffusion stack."""
