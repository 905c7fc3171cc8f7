"""Whole models against the runtimes that people use: a zoo, its contestants, one report."""
