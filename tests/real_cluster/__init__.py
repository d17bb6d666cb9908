"""The contract of all runtimes, on a real cluster: `make test-cluster`, see docs/kubernetes.md."""
