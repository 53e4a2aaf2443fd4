"""What a workflow is: model, loading, expressions, plan."""
