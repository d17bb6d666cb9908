"""What runs inside an instance: a model server and its settings. Stands apart from everything of ours."""
