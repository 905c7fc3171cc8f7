"""Design spaces whose points have all been timed once, and searches of them without a machine."""
