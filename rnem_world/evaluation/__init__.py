"""Evaluation: metrics, tables, figures and videos."""
