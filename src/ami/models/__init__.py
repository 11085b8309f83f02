"""World models, their checkpoints and their contract."""
