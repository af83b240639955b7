"""The version, for setup and for the package."""

__version__ = "0.1.0"
