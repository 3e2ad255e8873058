"""Graph -> kernel -> text -> machine code."""
