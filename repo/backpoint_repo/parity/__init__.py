"""Spare packs from which lost ones are made again."""
