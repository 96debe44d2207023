"""Sessions over recurrent networks: an engine, its stores and its transports."""
