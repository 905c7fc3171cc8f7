"""Tuners side by side: same tasks, one fresh process per run, final kernels timed by one neutral harness."""
