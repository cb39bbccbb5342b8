"""Prefect, and nothing else that imports it: plans as task runs and deployments."""
