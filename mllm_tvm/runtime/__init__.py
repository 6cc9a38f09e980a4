"""Runs an artifact: chunk planner, task graph, scheduler, workers and the engine."""
