"""Environments that can be acted in."""
