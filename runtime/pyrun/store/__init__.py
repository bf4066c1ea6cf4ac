"""What is on disk, and nothing about processes."""
