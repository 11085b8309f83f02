"""AMI: a small world model that learns from video, plans, and can be verified."""
