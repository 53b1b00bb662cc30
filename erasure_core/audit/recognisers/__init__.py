"""Who says what a picture shows."""
