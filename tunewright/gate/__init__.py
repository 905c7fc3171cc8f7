"""A performance gate: two sides of a kernel or model, timed in pairs on one machine, and a verdict."""
