"""How fast medcli is on this machine, each number beside a limit measured in the same run."""
