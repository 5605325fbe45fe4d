"""Ball physics in NumPy, vectorised over worlds."""
