"""The commands, by what they are for; `stepconf.cli` lists them."""
