"""Experience: episodes on disk, the readers that fill them, the loader that cuts clips."""
