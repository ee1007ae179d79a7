"""Parts that know tensors, not tasks."""
