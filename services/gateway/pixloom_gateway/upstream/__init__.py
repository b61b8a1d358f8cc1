"""The scheduler as the gateway sees it: typed and raw calls over several addresses, and watches that survive one."""
