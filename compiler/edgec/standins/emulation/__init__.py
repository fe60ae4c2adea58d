"""Kernels of GPU libraries, executed on this CPU: a stand-in for the device's processor."""
