"""What is kept of the past: moments on disk, found again by likeness, time and place."""
