"""The server's edges: UDP, HTTP, the client of its API, its worker and its process."""
