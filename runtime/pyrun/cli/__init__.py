"""From argv to one engine call, and back to text and an exit status. Nobody else prints or exits."""
