"""Designs against workloads: jobs, figures, reports."""
