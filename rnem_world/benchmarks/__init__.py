"""Benchmarks: how quick reading, training and dreaming are, and the yardsticks that they are held against."""
