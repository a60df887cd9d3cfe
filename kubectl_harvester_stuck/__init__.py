"""Find and release stuck Harvester virtual machines: `kubectl harvester-stuck`."""

__version__ = "0.1.0"
