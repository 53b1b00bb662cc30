"""One method a file; ``registry`` lists them."""
