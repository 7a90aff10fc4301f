"""`python -m server` is `lmchat`."""

from server.cli import main

raise SystemExit(main())
