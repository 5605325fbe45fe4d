"""Learned worlds in the browser: a page that dreams under the visitor's keys, served from here or from any web host."""
