"""What is built on top of the core API."""
