"""What `fedner doctor` looks at: one file a group; `institution` and `coordinator` list them."""
