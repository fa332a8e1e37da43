"""Storing damaged content anew."""
