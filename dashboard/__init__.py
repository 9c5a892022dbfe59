"""The dashboard and the usage API: a reader of the ledger's views. It never imports `proxy`."""
