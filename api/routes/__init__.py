"""Routes: translate, call one use case, translate."""
