"""What can be read out of latents."""
