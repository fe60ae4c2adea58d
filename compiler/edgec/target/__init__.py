"""Targets: one YAML profile per device class, extending each other.

Read ``schema.py`` (the fields), then ``load.py`` (files to target), ``host.py`` (this machine)
and ``summary.py`` (the list for people).
"""

from edgec.target.host import cpu_features, missing_features
from edgec.target.load import list_targets, load_profile, load_target, resolve_host
from edgec.target.schema import HOST, Target
from edgec.target.summary import TargetSummary, summaries

__all__ = [
    "HOST",
    "Target",
    "TargetSummary",
    "cpu_features",
    "list_targets",
    "load_profile",
    "load_target",
    "missing_features",
    "resolve_host",
    "summaries",
]
