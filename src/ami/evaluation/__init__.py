"""Questions asked of a checkpoint, and the report."""
