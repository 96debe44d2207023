"""Sessions over recurrent networks: an engine, its stores and its transports."""

__version__ = "0.1.0"
