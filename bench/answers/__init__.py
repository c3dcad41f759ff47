"""What comes of a command's words before anything is shown: of a plan, of a sweep, of stored rows."""
