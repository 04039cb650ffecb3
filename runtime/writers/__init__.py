"""Result files of one slide or patch: label masks, regions, overlays, tables."""
