"""The commands, one module per noun. Each asks the API or NATS, and prints."""
