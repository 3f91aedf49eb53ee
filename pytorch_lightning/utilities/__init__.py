"""Import paths of 2019."""
