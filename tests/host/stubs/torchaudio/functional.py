"""Empty: nothing here is called."""
