"""From a condition to a clean latent: networks, tiles, noise and the sampling loop."""
