"""One Python function per recipe."""
