"""What the API answers and takes, a module per resource."""
