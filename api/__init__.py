"""The HTTP side: REST, the event stream, metrics, and the page behind the signed links."""
