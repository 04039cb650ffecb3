"""Kits: a folder with everything that a workstation without internet installs."""
