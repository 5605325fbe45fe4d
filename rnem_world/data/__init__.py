"""Datasets of video sequences: schema, collection, HDF5 storage and loading."""
