"""Agents: the protocol, and the baselines that need no learning."""
