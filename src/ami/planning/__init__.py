"""Costs, and planners that minimise them by imagining."""
