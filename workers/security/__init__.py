"""Who asks, and who may."""
