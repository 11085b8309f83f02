"""What teaches a model."""
