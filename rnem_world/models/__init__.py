"""R-NEM and its baselines: configuration, encoders, cores, EM and rollouts."""
