"""Schedules for kernels nobody wrote by hand, one platform per file."""
