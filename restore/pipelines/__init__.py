"""The same model as a pipeline of diffusers."""
