"""The version, where everything can read it without importing the package's table of contents."""

__version__ = "0.1.0"
