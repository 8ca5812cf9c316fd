"""What Holdfast is tested with, shipped for those who build on it."""
