"""What a device would do: the runtime's scheduler on a device profile's virtual clock; no weights."""
