"""What the configurations of other programs say, as the keys of this one."""
