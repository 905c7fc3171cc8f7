"""Tunewright: an ML-guided auto-scheduler and autotuning service over Apache TVM."""

__version__ = "0.1.0"
