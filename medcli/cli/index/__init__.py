"""`medcli index`: one file a group of its commands."""
