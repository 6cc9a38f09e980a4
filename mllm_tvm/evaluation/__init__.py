"""Measures models: tasks, their scores, confidence intervals, and the search for the linear at fault."""
