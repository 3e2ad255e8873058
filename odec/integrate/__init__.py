"""Many steps: the loop, its step-size control, its output."""
