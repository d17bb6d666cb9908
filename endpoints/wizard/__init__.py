"""The way from nothing to an endpoint in eight steps, on a draft that the server keeps."""
