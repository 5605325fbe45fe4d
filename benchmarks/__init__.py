"""How fast the program is, and whether it keeps what its documents say: measured, and printed by scripts."""
