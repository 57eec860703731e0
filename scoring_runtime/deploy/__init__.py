"""From what people have to an image that runs."""
