"""Recognisers: judges that say whether a picture shows a concept."""
