"""The metering relay, its journal and the recorder. It never imports `dashboard`."""
