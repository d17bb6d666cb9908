"""A Kubernetes API server of our own for tests, with the controllers and the kubelet that move its objects.

kmock's emulator keeps objects over HTTP, but knows no server-side apply, selectors, resourceVersion, pages, 410,
preconditions or grace periods, which is where a real server says no. So this one is small and strict: `store` has
those rules, `server` the HTTP, `life` what controllers and nodes do.
"""
