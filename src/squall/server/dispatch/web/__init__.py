"""Web functions in the server: where they are found, and requests on their way to containers and back."""
