"""The REST side: routes below `/api/v1`, problem documents, the docs page and the middleware round them."""
